# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""FashionMNIST: 70 000 pictures of clothes, of 28x28 pixels, in the format of MNIST."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Binarization
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_idx, read_npz
from pyro_dgm.data.split import Split

_HOMES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)


def _copies(name: str, md5: str) -> tuple[Copy]:
    # The md5s are those of the README of github.com/zalandoresearch/fashion-mnist.
    return (Copy(f"fashion_mnist/{name}", "md5:" + md5, tuple(home + name for home in _HOMES)),)


class FashionMNIST(Dataset):
    """60 000 + 10 000 images of 28x28 with 256 grey levels; labels 0..9.

    The first 50 000 training images are for training, the last 10 000 of them for validation, as for `MNIST`.

    Args:
        variant: ``"full"``, or ``"sprite900"``: the 900 images of the project's sprite sheet, 90 of each class, split
            70, 10 and 10 of each. That sample is for tests and pictures; its numbers mean nothing.
        binarization: ``"none"`` (256 levels), ``"dynamic"`` or ``"static"``.
        root: Folder with ``fashion_mnist/train-images-idx3-ubyte.gz`` and the other three, or with
            ``fashion_mnist/fashion_mnist_sprite900.npz``. See `fetch` for where they are looked for otherwise.

    Source: Xiao, Rasul & Vollgraf, Fashion-MNIST (2017), arXiv:1708.07747.
    """

    FILES: ClassVar[Mapping[str, tuple[Copy, ...]]] = {
        "train_x": _copies("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        "train_labels": _copies("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        "test_x": _copies("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        "test_labels": _copies("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    }
    SAMPLE: ClassVar[Copy] = Copy(
        "fashion_mnist/fashion_mnist_sprite900.npz",
        "sha256:cc4f0e8048a21e40b67d68af619d297bac4817109f4cd25e466568c3b6873421",
    )
    TRAIN_SIZE: ClassVar[int] = 50_000

    def __init__(
        self,
        *,
        variant: Literal["full", "sprite900"] = "full",
        binarization: Binarization = "none",
        root: Path | str | None = None,
    ) -> None:
        if variant not in ("full", "sprite900"):
            raise ValueError(f"FashionMNIST got variant={variant!r}: 'full' or 'sprite900' was needed.")
        train, valid, test = self._full(root) if variant == "full" else self._sprite(root)
        super().__init__(
            name="FashionMNIST" if variant == "full" else "FashionMNIST-sprite900",
            grey_levels=256,
            train=train,
            valid=valid,
            test=test,
            binarization=binarization,
            licence="MIT",
            source="https://github.com/zalandoresearch/fashion-mnist",
            citation="Xiao, Rasul & Vollgraf, arXiv:1708.07747",
            note="" if variant == "full" else "a sample of 900 images, not comparable with published numbers",
        )

    def _full(self, root: Path | str | None) -> tuple[Split, Split, Split]:
        others = {'variant="sprite900"': self.SAMPLE}
        arrays = {
            key: torch.from_numpy(read_idx(*fetch("FashionMNIST", copies, root=root, others=others)).copy())
            for key, copies in self.FILES.items()
        }
        known = Split(arrays["train_x"], arrays["train_labels"])
        test = Split(arrays["test_x"], arrays["test_labels"])
        return known[: self.TRAIN_SIZE], known[self.TRAIN_SIZE :], test

    def _sprite(self, root: Path | str | None) -> tuple[Split, Split, Split]:
        who = "FashionMNIST(variant='sprite900')"
        arrays = read_npz(*fetch(who, [self.SAMPLE], root=root), keys=["images", "labels"])
        everything = Split(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]))
        place = torch.arange(len(everything)) % 90  # the classes follow each other, 90 images each
        return everything[place < 70], everything[(place >= 70) & (place < 80)], everything[place >= 80]
