# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""FashionMNIST is whole unless its sample is asked for by name."""

import gzip
import io
import struct

import numpy as np
import pytest
import torch

from pyro_dgm.data import FashionMNIST
from pyro_dgm.data.files import Copy

CLASSES = np.repeat(np.arange(10, dtype=np.uint8), 90)


def idx(values):
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.tobytes())


def test_the_whole_set(root, put, monkeypatch):
    x = np.random.RandomState(0).randint(256, size=(12, 28, 28), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    parts = {"train_x": x, "train_labels": labels, "test_x": x[:4], "test_labels": labels[:4]}
    copies = {key: (put(f"fashion_mnist/{key}.gz", idx(values)),) for key, values in parts.items()}
    monkeypatch.setattr(FashionMNIST, "FILES", copies)
    monkeypatch.setattr(FashionMNIST, "TRAIN_SIZE", 9)
    data = FashionMNIST(root=root)
    assert (data.description.name, data.description.levels, data.description.note) == ("FashionMNIST", 256, "")
    assert data.description.sizes == {"train": 9, "valid": 3, "test": 4}
    assert torch.equal(torch.cat([data.train.x, data.valid.x]), torch.from_numpy(x))
    assert torch.equal(data.valid.labels, torch.tensor([9, 0, 1]))


def test_the_sample_takes_as_many_of_each_class(root, put, monkeypatch):
    file = io.BytesIO()
    x = np.broadcast_to(np.arange(900)[:, None, None] % 256, (900, 28, 28)).astype(np.uint8)
    np.savez_compressed(file, images=x, labels=CLASSES)
    monkeypatch.setattr(FashionMNIST, "SAMPLE", put(FashionMNIST.SAMPLE.path, file.getvalue()))
    data = FashionMNIST(root=root, variant="sprite900")
    assert data.description.sizes == {"train": 700, "valid": 100, "test": 100}
    assert "sprite900" in data.description.name
    assert "not comparable" in str(data.description)
    assert data.train.labels.bincount().tolist() == [70] * 10
    assert data.valid.labels.bincount().tolist() == data.test.labels.bincount().tolist() == [10] * 10


def without_homes(monkeypatch):
    files = {key: (Copy(copies[0].path, copies[0].digest),) for key, copies in FashionMNIST.FILES.items()}
    monkeypatch.setattr(FashionMNIST, "FILES", files)


def test_the_sample_is_never_taken_for_the_whole(root, put, monkeypatch):
    put(FashionMNIST.SAMPLE.path, b"sample")
    without_homes(monkeypatch)
    with pytest.raises(FileNotFoundError, match='only if you ask for it by variant="sprite900"'):
        FashionMNIST(root=root)


@pytest.mark.data
def test_the_real_sample(data_root, monkeypatch):
    data = FashionMNIST(root=data_root, variant="sprite900", binarization="dynamic")
    assert data.description.sizes == {"train": 700, "valid": 100, "test": 100}
    assert data.train.x.float().mean() == pytest.approx(72.1756, abs=1e-3)
    assert data.train.labels.bincount().tolist() == [70] * 10
    if not (data_root / FashionMNIST.FILES["train_x"][0].path).exists():
        without_homes(monkeypatch)
        with pytest.raises(FileNotFoundError, match="sprite900"):
            FashionMNIST(root=data_root)
