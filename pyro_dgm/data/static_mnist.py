# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""StaticMNIST: the MNIST digits in the fixed black-and-white version of most published likelihood tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_amat
from pyro_dgm.data.split import Split

_HOME = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"


def _copies(split: str, packed: str, unpacked: str) -> tuple[Copy, Copy]:
    name = f"binarized_mnist_{split}.amat"
    official = Copy(f"binarized_mnist/{name}", "sha256:" + unpacked, (_HOME + name,))
    return Copy(f"binarized_mnist/{name}.gz", "sha256:" + packed), official


class StaticMNIST(Dataset):
    """50 000 + 10 000 + 10 000 binary images of 28x28, without labels.

    The rows are not in MNIST's order. The home has the plain text files; gzipped ones are read as well.

    Args:
        root: Folder with ``binarized_mnist/binarized_mnist_{train,valid,test}.amat`` or ``.amat.gz``. See `fetch` for
            where they are looked for otherwise.

    Source: Larochelle & Murray, The Neural Autoregressive Distribution Estimator (AISTATS 2011); Salakhutdinov &
    Murray, On the Quantitative Analysis of Deep Belief Networks (ICML 2008).
    """

    FILES: ClassVar[Mapping[str, tuple[Copy, ...]]] = {
        "train": _copies(
            "train",
            "af247bd6075cf9adc4715459dcd5f13eaa99a2c92d8d81379a05da94770b6c0e",
            "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
        ),
        "valid": _copies(
            "valid",
            "533b71bc0198f4d73c54ae5fe6c96fc08dc3cf1b3fae24c5521dbc0452507e38",
            "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
        ),
        "test": _copies(
            "test",
            "32a3c54d03504632bf9f131b4a148c7567aa6fc87da017049b044bdc14c2a0f2",
            "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
        ),
    }

    def __init__(self, *, root: Path | str | None = None) -> None:
        splits = {}
        for split, copies in self.FILES.items():
            bits = read_amat(*fetch("StaticMNIST", copies, root=root), width=784)
            splits[split] = Split(torch.from_numpy(bits).view(-1, 28, 28))
        super().__init__(
            name="StaticMNIST",
            grey_levels=2,
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            binarization="static",
            licence="none stated (derived from MNIST)",
            source=_HOME,
            citation="Larochelle & Murray, AISTATS 2011",
        )
