# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""CIFAR10: 60 000 colour photographs of ten kinds of things, of 32x32 pixels."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_cifar, read_npz
from pyro_dgm.data.split import Split

_SUBSET_NOTE = "4000 of the 60000 images, none of the official test set: bits/dim not comparable with published ones"


class CIFAR10(Dataset):
    """50 000 + 10 000 images of 3x32x32 (channel, row, column) with 256 levels; labels 0..9.

    There is no official validation set: the last 5000 training images are taken for it, which leaves 45 000.

    Args:
        variant: ``"full"``, or ``"first4000"``: the first 4000 training images, split 3000, 500 and 500 in their order.
            That subset is for tests and tutorials; its bits per dimension are not comparable with published ones.
        root: Folder with ``cifar10/cifar-10-binary.tar.gz`` (the binary version: the Python one is a pickle and is
            never opened), or with ``cifar10/cifar10_train_first4000.npz``. See `fetch` for where they are looked for
            otherwise.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """

    # The md5 is the one on the home page.
    ARCHIVE: ClassVar[Copy] = Copy(
        "cifar10/cifar-10-binary.tar.gz",
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    )
    SUBSET: ClassVar[Copy] = Copy(
        "cifar10/cifar10_train_first4000.npz",
        "sha256:4c03c70e96f9728232c460460df6a3d55f49a39ddd790529fe1ebb275c8d358b",
    )
    VALID_SIZE: ClassVar[int] = 5000

    def __init__(self, *, variant: Literal["full", "first4000"] = "full", root: Path | str | None = None) -> None:
        if variant not in ("full", "first4000"):
            raise ValueError(f"CIFAR10 got variant={variant!r}: 'full' or 'first4000' was needed.")
        train, valid, test = self._full(root) if variant == "full" else self._first4000(root)
        super().__init__(
            name="CIFAR10" if variant == "full" else "CIFAR10-first4000",
            grey_levels=256,
            train=train,
            valid=valid,
            test=test,
            licence="none stated (a subset of the withdrawn 80 Million Tiny Images)",
            source="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
            note="" if variant == "full" else _SUBSET_NOTE,
        )

    def _full(self, root: Path | str | None) -> tuple[Split, Split, Split]:
        name, data = fetch("CIFAR10", [self.ARCHIVE], root=root, others={'variant="first4000"': self.SUBSET})
        folder = "cifar-10-batches-bin"
        x, labels = read_cifar(name, data, members=[f"{folder}/data_batch_{i}.bin" for i in range(1, 6)])
        known = Split(torch.from_numpy(x.copy()), torch.from_numpy(labels.copy()))
        x, labels = read_cifar(name, data, members=[f"{folder}/test_batch.bin"])
        test = Split(torch.from_numpy(x.copy()), torch.from_numpy(labels.copy()))
        return known[: -self.VALID_SIZE], known[-self.VALID_SIZE :], test

    def _first4000(self, root: Path | str | None) -> tuple[Split, Split, Split]:
        found = fetch("CIFAR10(variant='first4000')", [self.SUBSET], root=root)
        arrays = read_npz(*found, keys=["images", "labels"])
        x = np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
        everything = Split(torch.from_numpy(x), torch.from_numpy(arrays["labels"]))
        return everything[:-1000], everything[-1000:-500], everything[-500:]
