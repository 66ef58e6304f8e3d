# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""FreyFaces are the same from both files, never unpickled, and split as in the papers' programs."""

import hashlib
import io

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_dgm.data import FreyFaces
from pyro_dgm.data.files import Copy

IMAGES = np.random.RandomState(2).randint(256, size=(1965, 28, 20), dtype=np.uint8)
NPZ, MAT = FreyFaces.FILES


def mat(ff):
    file = io.BytesIO()
    savemat(file, {"ff": ff})
    return file.getvalue()


def npz(images):
    file = io.BytesIO()
    np.savez(file, images=images)
    return file.getvalue()


def test_both_files_give_the_split_of_the_papers(root, put, monkeypatch):
    shuffled = IMAGES.copy()
    np.random.RandomState(321).shuffle(shuffled)
    for copy in (put(MAT.path, mat(IMAGES.reshape(1965, 560).T)), put(NPZ.path, npz(IMAGES))):
        monkeypatch.setattr(FreyFaces, "FILES", (copy,))
        data = FreyFaces(root=root, seed=321)
        assert data.description.sizes == {"train": 1565, "valid": 200, "test": 200}
        assert torch.equal(torch.cat([data.train.x, data.valid.x, data.test.x]), torch.from_numpy(shuffled))
        assert "seed 321" in str(data.description)


@pytest.mark.parametrize(
    "ff",
    [
        IMAGES.reshape(1965, 560),
        IMAGES.reshape(1965, 560).T.astype(float),
        IMAGES.reshape(1965, 560).T // 4,
        IMAGES.reshape(1965, 560)[:9].T,
    ],
    ids=["rows", "floats", "dark", "few"],
)
def test_an_official_file_that_holds_something_else(root, put, monkeypatch, ff):
    put(MAT.path, mat(ff))
    monkeypatch.setattr(FreyFaces, "FILES", (NPZ, Copy(MAT.path, None)))
    with pytest.raises(ValueError, match=r"frey_rawface.mat has ff.*\(560, 1965\)"):
        FreyFaces(root=root)


def test_the_pickle_is_not_looked_for():
    assert not any(copy.path.endswith((".pkl", ".pickle")) for copy in FreyFaces.FILES)


@pytest.mark.data
def test_the_real_file(data_root):
    data = FreyFaces(root=data_root)
    digest = hashlib.sha256(data.test.x.numpy().tobytes()).hexdigest()
    assert digest == "330344e6421f91afd5fcc176cb73ca1c79a6abecc8f6ea88eb6ba7e516df25e5"
    together = torch.cat([data.train.x, data.valid.x, data.test.x])
    assert (int(together.min()), int(together.max())) == (8, 238)
