# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""InMemory: a data set of your own, from tensors or arrays that you have already."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Binarization
from pyro_dgm.data.noise import permutation
from pyro_dgm.data.split import Split

Data = Split | Tensor | NDArray[np.generic]


class InMemory(Dataset):
    """Integers, or real numbers, of your own as a `Dataset`.

    Without ``valid`` and ``test`` the data are shuffled by ``seed`` and a tenth of them is kept for each.

    Args:
        train: Integers 0..levels-1 or real numbers, shape ``(N, *shape)``, or a `Split` with labels.
        levels: Number of integer values that the data can have: 2 for bits, 256 for bytes; ``None`` for real numbers,
            which are taken as they are (`Table` standardises its columns).
        valid: Validation data, or ``None`` to take a tenth of ``train``; give both or none of the two.
        test: Test data, or ``None`` to take a tenth of ``train``.
        binarization: ``"none"`` (models see the given levels), ``"dynamic"`` or ``"static"``: see `Dataset`.
        seed: Seed of the split where none is given.
        name: Name of the data.
        licence: Terms of use.
        source: Where the data come from.

    Raises:
        TypeError: Floats where there are levels, or integers where there are none.
        ValueError: An empty split, NaN or an infinity, too few data to split, values outside the levels, or shapes
            that differ.

    >>> x = torch.arange(1000).reshape(100, 10) % 4
    >>> print(InMemory(x, levels=4).description)
    InMemory: 10, 4 levels (not binarised), 80 train + 10 valid + 10 test; licence: not stated; source: memory
    """

    def __init__(
        self,
        train: Data,
        *,
        levels: int | None,
        valid: Data | None = None,
        test: Data | None = None,
        binarization: Binarization = "none",
        seed: int = 0,
        name: str = "InMemory",
        licence: str = "not stated",
        source: str = "memory",
    ) -> None:
        splits = _split(_as_split(train), valid, test, seed=seed, name=name)
        super().__init__(
            name=name,
            grey_levels=levels,
            train=splits[0],
            valid=splits[1],
            test=splits[2],
            binarization=binarization,
            licence=licence,
            source=source,
        )


def _as_split(data: Data) -> Split:
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(np.require(data, requirements=["C", "W"]))  # a copy only of what torch cannot share
    return data if isinstance(data, Split) else Split(data)


def _split(train: Split, valid: Data | None, test: Data | None, *, seed: int, name: str) -> tuple[Split, Split, Split]:
    if valid is not None and test is not None:
        return train, _as_split(valid), _as_split(test)
    if valid is not None or test is not None:
        raise ValueError(f"{name} got only one of valid and test: give both, or neither to take them from train.")
    if len(train) < 3:
        raise ValueError(
            f"{name} got {len(train)} data and no valid and test: at least 3 are needed to split them. Give more, or "
            f"give valid and test as well."
        )
    order, held = permutation(len(train), seed), max(1, len(train) // 10)
    return train[order[: -2 * held]], train[order[-2 * held : -held]], train[order[-held:]]
