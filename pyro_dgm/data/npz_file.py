# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""NpzFile: a data set of your own, from arrays that numpy saved in one file."""

from pathlib import Path

import torch

from pyro_dgm.data.description import Binarization
from pyro_dgm.data.formats import read_npz
from pyro_dgm.data.in_memory import InMemory
from pyro_dgm.data.split import Split


class NpzFile(InMemory):
    """Integers, or real numbers, in a ``.npz`` file as a `Dataset`.

    The file has ``train``, ``valid`` and ``test``, or only ``train``, of which a tenth is then kept for each of the
    other two; and, if there are labels, ``train_labels`` and so on. ``numpy.savez_compressed("my.npz", train=x)`` makes
    one. Pickled objects are refused.

    Args:
        path: The file.
        levels: Number of integer values that the data can have: 2 for bits, 256 for bytes; ``None`` (``null`` in YAML
            and on the command line) for real numbers, which are taken as they are (`TableFile` standardises columns).
        binarization: ``"none"`` (models see the given levels), ``"dynamic"`` or ``"static"``: see `Dataset`.
        seed: Seed of the split where none is given.
        licence: Terms of use.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: Floats where there are levels, or integers where there are none.
        ValueError: Not such a file, an empty split, NaN or an infinity, values outside the levels, or shapes that
            differ.
    """

    def __init__(
        self,
        *,
        path: Path | str,
        levels: int | None,
        binarization: Binarization = "none",
        seed: int = 0,
        licence: str = "not stated",
    ) -> None:
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"NpzFile got path={str(path)!r}, which is not a file.")
        arrays = {key: torch.as_tensor(array) for key, array in read_npz(str(path), path.read_bytes()).items()}
        if "train" not in arrays:
            raise ValueError(f"NpzFile: {path} has {sorted(arrays)} but no 'train'. Save them with train=x.")
        splits = {
            key: Split(arrays[key], arrays.get(f"{key}_labels")) for key in ("train", "valid", "test") if key in arrays
        }
        super().__init__(
            splits["train"],
            levels=levels,
            valid=splits.get("valid"),
            test=splits.get("test"),
            binarization=binarization,
            seed=seed,
            name=path.stem,
            licence=licence,
            source=path.name,
        )
