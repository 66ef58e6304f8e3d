# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of all data sets: three splits of integers, or of real numbers, with an immutable description."""

import copy
from typing import Self

import torch

from pyro_dgm.data.batches import Batches
from pyro_dgm.data.binarization import binarize
from pyro_dgm.data.description import BINARIZATION_SEED, Binarization, Description, Sizes
from pyro_dgm.data.split import Split


class Dataset:
    """Integers with a known shape and number of levels, or real numbers, split into train, valid and test.

    To bring your own data, write a class whose ``__init__`` reads them and hands the three splits to this one. All that
    is said of the data (shape, sizes, levels) is taken from the tensors, and all that models rely on is checked here.
    The typed, keyword-only signature is the configuration: the command line takes the class by its import path. (For
    arrays that you have already, `InMemory` and `NpzFile` do it.)

    >>> class Stripes(Dataset):
    ...     '''Images with one white row.'''
    ...
    ...     def __init__(self, *, size: int = 8, repeats: int = 10) -> None:
    ...         x = torch.eye(size, dtype=torch.uint8)[:, :, None].expand(size, size, size).repeat(repeats, 1, 1)
    ...         super().__init__(
    ...             name="Stripes", grey_levels=2, train=Split(x), valid=Split(x[:size]), test=Split(x[:size]),
    ...             binarization="static", licence="CC0", source="made by this class",
    ...         )
    >>> data = Stripes()
    >>> print(data.description)
    Stripes: 8x8, 2 levels (binarised once and for all), 80 train + 8 valid + 8 test; licence: CC0; source: made by ...
    >>> next(iter(data.batches(batch_size=20))).shape
    torch.Size([20, 8, 8])

    Args:
        name: Name, with the variant where there are several.
        grey_levels: Number of integer values in the given tensors, which must lie in 0..grey_levels-1; ``None`` for
            real numbers, which have densities instead of probabilities.
        train: Training data.
        valid: Validation data, of the same shape.
        test: Test data, of the same shape.
        binarization: ``"none"``: models see the given integers. ``"dynamic"``: `train` keeps its grey levels and
            `batches` binarises them anew in every epoch; `valid` and `test` are binarised here, once, with fixed
            seeds. ``"static"``: all three are binarised here, once, with fixed seeds (nothing to do for 2 levels).
        licence: Terms of use as stated by the origin.
        source: Where the bytes come from.
        citation: What to cite.
        note: What makes numbers on these data incomparable to published ones.
        unit: In what units real numbers are: a log-density shifts with them.

    Raises:
        TypeError: The data or labels are not integers, or the data are although ``grey_levels`` is ``None``.
        ValueError: An empty split, values outside the levels, NaN or an infinity, or shapes that differ.
    """

    description: Description
    train: Split
    valid: Split
    test: Split

    def __init__(
        self,
        *,
        name: str,
        grey_levels: int | None,
        train: Split,
        valid: Split,
        test: Split,
        binarization: Binarization = "none",
        licence: str = "not stated",
        source: str = "not stated",
        citation: str = "",
        note: str = "",
        unit: str = "",
    ) -> None:
        _check_policy(name, grey_levels, binarization)
        given = {"train": train, "valid": valid, "test": test}
        splits = {key: split.checked(f"{name}.{key}", levels=grey_levels) for key, split in given.items()}
        shapes = {key: tuple(split.x.shape[1:]) for key, split in splits.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{name} got splits of different shapes {shapes}: all data must have one shape.")
        if grey_levels is not None and grey_levels > 2 and binarization != "none":
            splits |= _fixed_bits(splits, grey_levels, all_of_them=binarization == "static")
        self.train, self.valid, self.test = splits["train"], splits["valid"], splits["test"]
        self.description = Description(
            name=name,
            shape=shapes["train"],
            levels=grey_levels if binarization == "none" else 2,
            grey_levels=grey_levels,
            sizes=Sizes(**{key: len(split) for key, split in splits.items()}),
            binarization=binarization,
            licence=licence,
            source=source,
            citation=citation,
            note=note,
            unit=unit,
        )

    def __repr__(self) -> str:
        return f"<{self.description}>"

    def to(self, device: torch.device | str) -> Self:
        """Return the same data set with its tensors on a device; this one stays where it is."""
        moved = copy.copy(self)
        moved.train, moved.valid, moved.test = self.train.to(device), self.valid.to(device), self.test.to(device)
        return moved

    def batches(self, *, batch_size: int, seed: int = 0, drop_last: bool = False) -> Batches:
        """Feed the training data, binarised anew in every epoch where that is the policy (see `Batches`)."""
        grey_levels = self.description.grey_levels if self.description.binarization == "dynamic" else None
        return Batches(self.train.x, batch_size=batch_size, grey_levels=grey_levels, seed=seed, drop_last=drop_last)


def _fixed_bits(splits: dict[str, Split], grey_levels: int, *, all_of_them: bool) -> dict[str, Split]:
    """Binarise valid and test, or all three, once and for all."""
    bits = {}
    for number, (key, split) in enumerate(splits.items()):
        if all_of_them or key != "train":
            x = binarize(split.x, grey_levels=grey_levels, seed=BINARIZATION_SEED + number)
            bits[key] = Split(x, split.labels)
    return bits


def _check_policy(name: str, grey_levels: int | None, binarization: str) -> None:
    if binarization not in ("static", "dynamic", "none"):
        raise ValueError(f"{name} got binarization={binarization!r}: 'static', 'dynamic' or 'none' was needed.")
    if grey_levels is None:
        if binarization != "none":
            raise ValueError(f"{name} got binarization={binarization!r} and real numbers: only grey levels have bits.")
        return
    if grey_levels < 2:
        raise ValueError(f"{name} got {grey_levels} levels: at least 2 were needed.")
    if binarization != "none" and grey_levels > 256:
        raise ValueError(
            f"{name} got {grey_levels} grey levels to binarise: at most 256 can be. Rescale the data first."
        )
    if binarization == "dynamic" and grey_levels == 2:
        raise ValueError(f"{name} has 2 levels already: there is nothing to binarise anew. Try binarization='static'.")
