# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Digits: 1797 hand-written digits of 8x8 pixels that come with scikit-learn, so that no download is needed."""

import torch

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Binarization
from pyro_dgm.data.noise import permutation
from pyro_dgm.data.split import Split

_SPLIT_SEED = 0  # never change it: the split is what makes numbers comparable


class Digits(Dataset):
    """1797 images of 8x8 with 17 levels, in a fixed random split of 1297, 250 and 250; labels 0..9.

    There is no official split. This one is a permutation that depends on no library's version (see `noise`), so every
    run everywhere has the same.

    Args:
        binarization: ``"none"`` (17 levels), ``"dynamic"`` or ``"static"`` (P(1) = level / 16).

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), test set.

    >>> Digits().train.x.shape
    torch.Size([1297, 8, 8])
    """

    def __init__(self, *, binarization: Binarization = "none") -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        x, labels = torch.from_numpy(found.images).to(torch.uint8), torch.from_numpy(found.target).to(torch.int64)
        order = permutation(len(x), _SPLIT_SEED)
        everything = Split(x, labels)
        super().__init__(
            name="Digits",
            grey_levels=17,
            train=everything[order[:1297]],
            valid=everything[order[1297:1547]],
            test=everything[order[1547:]],
            binarization=binarization,
            licence="CC BY 4.0 (UCI)",
            source="scikit-learn's load_digits",
            citation="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        )
