# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Omniglot: hand-written characters of fifty alphabets, reduced to 28x28 pixels."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Binarization
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_mat, read_npz
from pyro_dgm.data.split import Split

_SHUFFLE_SEED = 123  # of Burda et al.'s program
_DERIVED_NOTE = (
    "other pixels and test set than the papers' chardata.mat: likelihoods not comparable with published ones"
)


class Omniglot(Dataset):
    """24 345 training images, of which 1345 are for validation, and 8070 (or 8115) for testing; labels: 50 alphabets.

    Args:
        variant: ``"chardata"``: the file of Burda et al. (2016), which all published likelihoods of 28x28 Omniglot use:
            23 000, 1345 and 8070. Its intensities in [0, 1] are rounded to 256 levels (it changes a probability by at
            most 1/510); columns come first in it and are turned upright. ``"derived"``: all 32 460 original drawings,
            reduced from 105x105 by a box filter: drawers 1..15 for training and validation (23 000 and 1345), 16..20
            for testing (8115). Likelihoods of the two variants are NOT comparable.
        binarization: ``"dynamic"``, ``"static"`` or ``"none"`` (256 levels).
        root: Folder with ``omniglot/chardata.mat`` or ``omniglot/omniglot_28x28_derived.npz``. See `fetch` for where
            they are looked for otherwise.

    Training images are put in the order of ``numpy.random.RandomState(123).permutation``, and the last 1345 are for
    validation, as in Burda et al.'s program.

    Source: Lake, Salakhutdinov & Tenenbaum, Human-level concept learning (Science, 2015); Burda, Grosse &
    Salakhutdinov, Importance Weighted Autoencoders (ICLR 2016), arXiv:1509.00519, section 5.
    """

    # No checksum of this file was published; the id under which git lists it is one.
    CHARDATA: ClassVar[Copy] = Copy(
        "omniglot/chardata.mat",
        "git-blob:016a3536ffe5e1d38e42563a18d7a78bfaf643ec",
        ("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
    )
    DERIVED: ClassVar[Copy] = Copy(
        "omniglot/omniglot_28x28_derived.npz",
        "sha256:7f4fe671b831615cb4a5328a6361835a1837cbbbb9907dffdaa56ed1aad5100f",
    )
    VALID_SIZE: ClassVar[int] = 1345

    def __init__(
        self,
        *,
        variant: Literal["chardata", "derived"] = "chardata",
        binarization: Binarization = "dynamic",
        root: Path | str | None = None,
    ) -> None:
        if variant not in ("chardata", "derived"):
            raise ValueError(f"Omniglot got variant={variant!r}: 'chardata' or 'derived' was needed.")
        known, test = self._chardata(root) if variant == "chardata" else self._derived(root)
        known = known[torch.from_numpy(np.random.RandomState(_SHUFFLE_SEED).permutation(len(known)))]
        super().__init__(
            name="Omniglot" if variant == "chardata" else "Omniglot-derived",
            grey_levels=256,
            train=known[: -self.VALID_SIZE],
            valid=known[-self.VALID_SIZE :],
            test=test,
            binarization=binarization,
            licence="MIT (brendenlake/omniglot)",
            source="https://github.com/yburda/iwae"
            if variant == "chardata"
            else "https://github.com/brendenlake/omniglot",
            citation="Lake, Salakhutdinov & Tenenbaum, Science 350, 2015; Burda et al., ICLR 2016",
            note="" if variant == "chardata" else _DERIVED_NOTE,
        )

    def _chardata(self, root: Path | str | None) -> tuple[Split, Split]:
        found = fetch("Omniglot", [self.CHARDATA], root=root, others={'variant="derived"': self.DERIVED})
        arrays = read_mat(*found, keys=["data", "target", "testdata", "testtarget"])
        known = Split(_upright(arrays["data"]), torch.from_numpy(arrays["target"].argmax(0)))
        return known, Split(_upright(arrays["testdata"]), torch.from_numpy(arrays["testtarget"].argmax(0)))

    def _derived(self, root: Path | str | None) -> tuple[Split, Split]:
        found = fetch("Omniglot(variant='derived')", [self.DERIVED], root=root)
        arrays = read_npz(*found, keys=["images", "alphabet", "drawer"])
        everything = Split(torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["alphabet"]))
        known = torch.from_numpy(arrays["drawer"]) <= 15
        return everything[known], everything[~known]


def _upright(columns: NDArray[np.generic]) -> torch.Tensor:
    """Turn intensities in [0, 1], one image a column with its own columns first, into levels of shape (N, 28, 28)."""
    intensity = np.asarray(columns, dtype=np.float64)
    if intensity.ndim != 2 or len(intensity) != 784 or not (intensity.min() >= 0 and intensity.max() <= 1):
        raise ValueError(f"Omniglot: chardata.mat has data of shape {intensity.shape}: 784 rows in [0, 1] were needed.")
    levels = np.rint(intensity * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(levels.T.reshape(-1, 28, 28).transpose(0, 2, 1)))
