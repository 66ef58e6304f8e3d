# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""CIFAR10 is read from the binary archive, and its subset only if asked for."""

import io
import tarfile

import numpy as np
import pytest
import torch

from pyro_dgm.data import CIFAR10
from pyro_dgm.data.files import Copy

X = np.random.RandomState(3).randint(256, size=(12, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10


def archive():
    file = io.BytesIO()
    records = np.concatenate([LABELS[:, None], X.reshape(12, -1)], 1)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for i, name in enumerate(names):
            data = records[2 * i : 2 * i + 2].tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_the_whole_set(root, put, monkeypatch):
    monkeypatch.setattr(CIFAR10, "ARCHIVE", put(CIFAR10.ARCHIVE.path, archive()))
    monkeypatch.setattr(CIFAR10, "VALID_SIZE", 3)
    data = CIFAR10(root=root)
    assert (data.description.name, data.description.shape, data.description.levels) == ("CIFAR10", (3, 32, 32), 256)
    assert data.description.sizes == {"train": 7, "valid": 3, "test": 2}
    assert torch.equal(torch.cat([data.train.x, data.valid.x, data.test.x]), torch.from_numpy(X))
    assert torch.cat([data.train.labels, data.valid.labels, data.test.labels]).tolist() == LABELS.tolist()


def test_the_subset_says_so_and_is_channel_first(root, put, monkeypatch):
    file = io.BytesIO()
    images = np.zeros((4000, 32, 32, 3), dtype=np.uint8)
    images[0, 5, 7] = [1, 2, 3]
    np.savez_compressed(file, images=images, labels=(np.arange(4000) % 10).astype(np.uint8))
    sample = put(CIFAR10.SUBSET.path, file.getvalue())
    monkeypatch.setattr(CIFAR10, "SUBSET", sample)
    data = CIFAR10(root=root, variant="first4000")
    assert data.description.sizes == {"train": 3000, "valid": 500, "test": 500}
    assert "CIFAR10-first4000" in str(data.description)
    assert "not comparable" in str(data.description)
    assert data.train.x[0, :, 5, 7].tolist() == [1, 2, 3]
    monkeypatch.setattr(CIFAR10, "ARCHIVE", Copy(CIFAR10.ARCHIVE.path, CIFAR10.ARCHIVE.digest))
    with pytest.raises(FileNotFoundError, match='only if you ask for it by variant="first4000"'):
        CIFAR10(root=root)


@pytest.mark.data
def test_the_real_subset(data_root):
    data = CIFAR10(root=data_root, variant="first4000")
    x = torch.cat([data.train.x, data.valid.x, data.test.x]).double()
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([125.36, 122.85, 113.39], abs=0.01)
    assert data.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
