# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Caltech101Silhouettes: outlines of objects of 101 classes, filled, of 28x28 pixels."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_mat
from pyro_dgm.data.split import Split


class Caltech101Silhouettes(Dataset):
    """4100 + 2264 + 2307 binary images of 28x28, 1 = object; labels 0..100 (the file's 1..101 less one).

    The file has the object as 0 and puts columns first; both are turned round, as in the papers.

    Args:
        root: Folder with ``caltech101_silhouettes/caltech101_silhouettes_28_split1.mat``. See `fetch` for where it is
            looked for otherwise.

    Source: Marlin, Swersky, Chen & de Freitas, Inductive Principles for Restricted Boltzmann Machine Learning
    (AISTATS 2010).
    """

    FILE: ClassVar[Copy] = Copy(
        "caltech101_silhouettes/caltech101_silhouettes_28_split1.mat",
        "sha256:eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
        ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",),
    )

    def __init__(self, *, root: Path | str | None = None) -> None:
        names = ("train", "val", "test")
        keys = [f"{name}_{part}" for name in names for part in ("data", "labels")]
        arrays = read_mat(*fetch("Caltech101Silhouettes", [self.FILE], root=root), keys=keys)
        splits = []
        for name in names:
            x = 1 - arrays[f"{name}_data"].astype(np.int64).reshape(-1, 28, 28).transpose(0, 2, 1)
            labels = arrays[f"{name}_labels"].astype(np.int64).reshape(-1) - 1
            splits.append(Split(torch.from_numpy(x), torch.from_numpy(labels)))
        super().__init__(
            name="Caltech101Silhouettes",
            grey_levels=2,
            train=splits[0],
            valid=splits[1],
            test=splits[2],
            binarization="static",
            licence="none stated (derived from Caltech 101)",
            source="https://people.cs.umass.edu/~marlin/data.shtml",
            citation="Marlin, Swersky, Chen & de Freitas, AISTATS 2010",
        )
