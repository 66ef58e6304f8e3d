# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""MNIST: 70 000 hand-written digits of 28x28 pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Binarization
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_idx
from pyro_dgm.data.split import Split

_HOMES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",  # the official home often refuses to serve, so it comes last
)


def _copies(name: str, packed: str, unpacked: str) -> tuple[Copy, Copy]:
    urls = tuple(home + name + ".gz" for home in _HOMES)
    return Copy(f"mnist/{name}.gz", "sha256:" + packed, urls), Copy(f"mnist/{name}", "sha256:" + unpacked)


class MNIST(Dataset):
    """60 000 + 10 000 images of 28x28 with 256 grey levels; labels 0..9.

    As in the literature the first 50 000 training images are for training, the last 10 000 of them for validation.
    (Burda et al. 2016 keep 59 600 and 400.)

    Args:
        binarization: ``"dynamic"`` (Salakhutdinov & Murray 2008: P(1) = grey / 255), ``"static"`` (drawn once: our
            draw, not that of `StaticMNIST`) or ``"none"`` (256 levels).
        root: Folder with ``mnist/train-images-idx3-ubyte.gz`` and the other three, packed or unpacked. See `fetch` for
            where it is looked for otherwise.

    Source: LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition (1998).
    """

    FILES: ClassVar[Mapping[str, tuple[Copy, ...]]] = {
        "train_x": _copies(
            "train-images-idx3-ubyte",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train_labels": _copies(
            "train-labels-idx1-ubyte",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "test_x": _copies(
            "t10k-images-idx3-ubyte",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        "test_labels": _copies(
            "t10k-labels-idx1-ubyte",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    }
    TRAIN_SIZE: ClassVar[int] = 50_000

    def __init__(self, *, binarization: Binarization = "dynamic", root: Path | str | None = None) -> None:
        arrays = {
            key: torch.from_numpy(read_idx(*fetch("MNIST", copies, root=root)).copy())
            for key, copies in self.FILES.items()
        }
        known = Split(arrays["train_x"], arrays["train_labels"])
        super().__init__(
            name="MNIST",
            grey_levels=256,
            train=known[: self.TRAIN_SIZE],
            valid=known[self.TRAIN_SIZE :],
            test=Split(arrays["test_x"], arrays["test_labels"]),
            binarization=binarization,
            licence="none stated by the authors, (c) LeCun, Cortes & Burges; CC BY-SA 3.0 is widely quoted",
            source="http://yann.lecun.com/exdb/mnist/",
            citation="LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86(11), 1998",
        )
