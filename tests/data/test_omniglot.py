# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Omniglot is the file of the papers unless the derived one is asked for, and both are upright."""

import hashlib
import io

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_dgm.data import Omniglot
from pyro_dgm.data.files import Copy

UPRIGHT = np.random.RandomState(1).randint(256, size=(20, 28, 28), dtype=np.uint8)
ALPHABET = np.arange(20) % 5


def chardata(images, **more):
    columns = images.transpose(0, 2, 1).reshape(len(images), 784).T / 255
    target = np.eye(5)[ALPHABET].T
    file = io.BytesIO()
    savemat(file, {"data": columns, "target": target, "testdata": columns, "testtarget": target} | more)
    return file.getvalue()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(Omniglot, "VALID_SIZE", 4)


def test_chardata(root, put, monkeypatch):
    monkeypatch.setattr(Omniglot, "CHARDATA", put("omniglot/chardata.mat", chardata(UPRIGHT)))
    data = Omniglot(root=root, binarization="none")
    order = np.random.RandomState(123).permutation(20)
    shuffled = torch.from_numpy(UPRIGHT[order])
    assert data.description.name == "Omniglot"
    assert torch.equal(data.train.x, shuffled[:-4])
    assert torch.equal(data.valid.x, shuffled[-4:])
    assert torch.equal(data.test.x, torch.from_numpy(UPRIGHT))
    assert data.train.labels.tolist() == ALPHABET[order][:-4].tolist()
    assert data.test.labels.tolist() == ALPHABET.tolist()


@pytest.mark.parametrize("wrong", [np.full((784, 3), 2.0), np.full((784, 3), np.nan), np.zeros((783, 3))])
def test_chardata_that_hold_something_else(root, put, monkeypatch, wrong):
    monkeypatch.setattr(Omniglot, "CHARDATA", put("omniglot/chardata.mat", chardata(UPRIGHT, data=wrong)))
    with pytest.raises(ValueError, match=r"784 rows in \[0, 1\]"):
        Omniglot(root=root)


def test_the_derived_variant_says_that_it_is_not_comparable(root, put, monkeypatch):
    file = io.BytesIO()
    drawer = np.array([*range(1, 21)], dtype=np.uint8)
    np.savez(file, images=UPRIGHT, alphabet=ALPHABET.astype(np.uint8), drawer=drawer)
    monkeypatch.setattr(Omniglot, "DERIVED", put(Omniglot.DERIVED.path, file.getvalue()))
    data = Omniglot(root=root, variant="derived")
    assert data.description.sizes == {"train": 11, "valid": 4, "test": 5}
    assert data.description.name == "Omniglot-derived"
    assert "not comparable" in str(data.description)
    assert data.test.labels.tolist() == ALPHABET[15:].tolist()
    monkeypatch.setattr(Omniglot, "CHARDATA", Copy("omniglot/chardata.mat", None))
    with pytest.raises(FileNotFoundError, match='variant="derived"'):
        Omniglot(root=root)


@pytest.mark.data
def test_the_real_derived_file(data_root, monkeypatch):
    monkeypatch.undo()
    data = Omniglot(root=data_root, variant="derived", binarization="none")
    assert data.description.sizes == {"train": 23_000, "valid": 1345, "test": 8115}
    assert len(data.test.labels.unique()) == 50
    digest = hashlib.sha256(data.valid.x.numpy().tobytes()).hexdigest()
    assert digest == "5fb6d68bc8f6e771b433f15b8719f3b33c2d93278136340152ed5bd63e5b1fff"
