# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""FreyFaces: 1965 grey frames of a film of one face, of 28x20 pixels."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_mat, read_npz
from pyro_dgm.data.split import Split

_SIZE = 1965


class FreyFaces(Dataset):
    """1565 + 200 + 200 images of 28x20 with 256 grey levels, without labels.

    The frames are shuffled before they are split, because neighbours in the film look alike. The order is that of
    ``numpy.random.RandomState(seed)``, as in the programs of Tomczak & Welling (2018) and van den Berg et al. (2018);
    the latter average over the seeds 123, 321 and 231.

    Args:
        seed: Seed of the split: another seed is another test set.
        root: Folder with ``frey_faces/freyfaces_uint8.npz`` (the safe copy; the pickle of the same pixels that many
            programs load is never opened) or with the official ``frey_faces/frey_rawface.mat``. No checksum of the
            official file is known to us: its shape, type and number of images are checked instead. See `fetch` for
            where they are looked for otherwise.

    Source: Roweis & Saul, Nonlinear Dimensionality Reduction by Locally Linear Embedding (Science, 2000).
    """

    FILES: ClassVar[tuple[Copy, ...]] = (
        Copy(
            "frey_faces/freyfaces_uint8.npz",
            "sha256:c12a56fa8f3b39089cc1781003ef55b91af3e9c5f6a225256078d4a13aa06dcc",
        ),
        Copy("frey_faces/frey_rawface.mat", None, ("https://cs.nyu.edu/~roweis/data/frey_rawface.mat",)),
    )

    def __init__(self, *, seed: int = 123, root: Path | str | None = None) -> None:
        name, data = fetch("FreyFaces", self.FILES, root=root)
        if name.endswith(".mat"):
            images = _frames(read_mat(name, data, keys=["ff"])["ff"])
        else:
            images = read_npz(name, data, keys=["images"])["images"]
        order = torch.from_numpy(np.random.RandomState(seed).permutation(_SIZE))
        everything = Split(torch.from_numpy(images))
        super().__init__(
            name="FreyFaces",
            grey_levels=256,
            train=everything[order[:-400]],
            valid=everything[order[-400:-200]],
            test=everything[order[-200:]],
            licence="none stated",
            source=f"https://cs.nyu.edu/~roweis/data.html (split by seed {seed})",
            citation="Roweis & Saul, Science 290, 2000",
        )


def _frames(columns: NDArray[np.generic]) -> NDArray[np.generic]:
    """Check the official matrix, one image a column with its rows first, and give shape (N, 28, 20)."""
    if columns.shape != (560, _SIZE) or columns.dtype != np.uint8 or np.ptp(columns) < 128:
        raise ValueError(
            f"FreyFaces: frey_rawface.mat has ff of shape {columns.shape} and type {columns.dtype}: bytes of shape "
            f"(560, {_SIZE}) that fill more than half of 0..255 were needed. Is it another file under the same name?"
        )
    return np.ascontiguousarray(columns.T).reshape(-1, 28, 20)
