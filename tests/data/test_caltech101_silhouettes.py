# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Caltech101Silhouettes are turned upright and made 1 on 0."""

import io

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_dgm.data import Caltech101Silhouettes


def test_a_synthetic_file(root, put, monkeypatch):
    upright = np.random.RandomState(0).randint(2, size=(5, 28, 28), dtype=np.uint8)
    stored = (1 - upright).transpose(0, 2, 1).reshape(5, 784)
    values = {f"{name}_data": stored[:size] for name, size in (("train", 5), ("val", 3), ("test", 2))}
    values |= {
        f"{name}_labels": np.arange(1, size + 1)[:, None] for name, size in (("train", 5), ("val", 3), ("test", 2))
    }
    file = io.BytesIO()
    savemat(file, values | {"classnames": np.array([["a", "b"]], dtype=object)})
    monkeypatch.setattr(Caltech101Silhouettes, "FILE", put(Caltech101Silhouettes.FILE.path, file.getvalue()))
    data = Caltech101Silhouettes(root=root)
    for split, size in ((data.train, 5), (data.valid, 3), (data.test, 2)):
        assert torch.equal(split.x, torch.from_numpy(upright[:size]))
        assert split.labels.tolist() == list(range(size))


@pytest.mark.data
def test_the_real_file(data_root):
    data = Caltech101Silhouettes(root=data_root)
    assert data.description.sizes == {"train": 4100, "valid": 2264, "test": 2307}
    assert (data.description.shape, data.description.levels) == ((28, 28), 2)
    assert data.train.labels.unique().tolist() == list(range(101))
    assert data.train.x.float().mean() == pytest.approx(0.44894, abs=1e-4)
