# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The tables of papers are the published files, split as they say, and never taken for one another."""

import hashlib
import io

import numpy as np
import pytest
import torch

from pyro_dgm.data import BreastCancer, MiniBooNE, WineQuality
from pyro_dgm.data.files import Copy


def digest(x):
    return hashlib.sha256(x.numpy().tobytes()).hexdigest()


def npy(x):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def test_breast_cancer_is_there_without_files():
    from sklearn.datasets import load_breast_cancer

    data = BreastCancer()
    assert data.description.sizes == {"train": 462, "valid": 51, "test": 56}
    assert (data.description.shape, data.description.levels) == ((30,), None)
    together = data.raw(torch.cat([data.train.x, data.valid.x, data.test.x]).double())
    found = load_breast_cancer().data
    np.testing.assert_allclose(np.sort(together.numpy(), 0), np.sort(found, 0), rtol=1e-4, atol=1e-4)
    shares = [split.labels.double().mean().item() for split in (data.train, data.valid, data.test)]
    assert shares == pytest.approx([0.62, 0.62, 0.62], abs=0.12)  # the file begins with zeros


def test_the_split_is_the_one_of_the_first_release():
    labels = BreastCancer().test.labels.to(torch.uint8)
    assert digest(labels) == "a849190604f3e6442da2cac0c30933ef02b771562eb742ed79bb4e123ca83af6"


def wine(root, put, monkeypatch, text):
    monkeypatch.setattr(WineQuality, "FILES", {"red": put("uci/winequality-red.csv", text.encode())})
    return WineQuality(root=root, variant="red")


def test_wine_has_its_marks_as_labels(root, put, monkeypatch):
    x = np.random.RandomState(0).rand(50, 2)
    lines = ['"sugar";"alcohol";"quality"', *(f"{a};{b};{i % 3 + 4}" for i, (a, b) in enumerate(x))]
    data = wine(root, put, monkeypatch, "\n".join(lines) + "\n")
    assert data.description.sizes == {"train": 41, "valid": 4, "test": 5}
    everything = torch.cat([data.train.x, data.valid.x, data.test.x])
    labels = torch.cat([data.train.labels, data.valid.labels, data.test.labels])
    nearest = torch.cdist(data.raw(everything).double(), torch.from_numpy(x)).argmin(1)
    assert torch.equal(labels, nearest % 3 + 4)
    with pytest.raises((ValueError, TypeError), match="rose"):
        WineQuality(root=root, variant="rose")


def test_miniboone_keeps_its_order(root, put, monkeypatch):
    x = np.random.RandomState(0).randn(36488, 43) * 5 + 3
    monkeypatch.setattr(MiniBooNE, "FULL", put(MiniBooNE.FULL.path, npy(x)))
    data = MiniBooNE(root=root)
    assert data.description.sizes == {"train": 29556, "valid": 3284, "test": 3648}  # as in the published programs
    rest = x[:-3648]
    expected = (x[-3648:] - rest.mean(0)) / rest.std(0)
    np.testing.assert_allclose(data.test.x, expected, rtol=1e-4, atol=1e-5)


def test_another_file_under_the_name_of_miniboone(root, put, monkeypatch):
    monkeypatch.setattr(MiniBooNE, "FULL", Copy("miniboone/data.npy", None))
    put("miniboone/data.npy", npy(np.ones((10, 43))))
    with pytest.raises(ValueError, match=r"shape \(10, 43\).*\(36488, 43\) were needed"):
        MiniBooNE(root=root)


def test_the_sample_is_never_taken_for_the_whole(root, put):
    put(MiniBooNE.SAMPLE.path, b"sample")
    with pytest.raises(FileNotFoundError, match='only if you ask for it by variant="first1523"'):
        MiniBooNE(root=root)
    with pytest.raises((ValueError, TypeError), match="half"):
        MiniBooNE(root=root, variant="half")


@pytest.mark.data
def test_the_real_files(data_root):
    sample = MiniBooNE(root=data_root, variant="first1523")
    assert sample.description.sizes == {"train": 1234, "valid": 137, "test": 152}
    assert "not comparable" in str(sample.description)
    assert "first1523" in sample.description.name
    red, white = (WineQuality(root=data_root, variant=variant) for variant in ("red", "white"))
    assert red.description.sizes == {"train": 1296, "valid": 144, "test": 159}
    assert white.description.sizes == {"train": 3969, "valid": 440, "test": 489}
    assert {data.description.shape for data in (red, white)} == {(11,)}
    assert sorted(white.test.labels.unique().tolist()) == [3, 4, 5, 6, 7, 8]
    marks = white.test.labels.to(torch.uint8)
    assert digest(marks) == "f3614370dc1d7b7c0bc311f57dcbc002bbb2c0de64ef095eee2d0cd1579d8142"
