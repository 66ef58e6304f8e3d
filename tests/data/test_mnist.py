# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""MNIST is read from packed or plain files, split as in the papers, and checked."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from pyro_dgm.data import MNIST

PATHS = {
    "train_x": "mnist/train-images-idx3-ubyte",
    "train_labels": "mnist/train-labels-idx1-ubyte",
    "test_x": "mnist/t10k-images-idx3-ubyte",
    "test_labels": "mnist/t10k-labels-idx1-ubyte",
}
RANDOM = np.random.RandomState(0)
ARRAYS = {
    "train_x": RANDOM.randint(256, size=(30, 28, 28), dtype=np.uint8),
    "train_labels": np.arange(30, dtype=np.uint8) % 10,
    "test_x": RANDOM.randint(256, size=(8, 28, 28), dtype=np.uint8),
    "test_labels": np.arange(8, dtype=np.uint8),
}


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture(params=["packed", "plain"])
def files(request, put, monkeypatch):
    """Thirty and eight random images under their own checksums."""
    pack, end = (gzip.compress, ".gz") if request.param == "packed" else (bytes, "")
    copies = {key: (put(path + end, pack(idx(ARRAYS[key]))),) for key, path in PATHS.items()}
    monkeypatch.setattr(MNIST, "FILES", copies)
    monkeypatch.setattr(MNIST, "TRAIN_SIZE", 25)
    return copies


@pytest.mark.usefixtures("files")
def test_the_splits(root):
    data = MNIST(root=root, binarization="none")
    x, labels = torch.from_numpy(ARRAYS["train_x"]), torch.arange(30) % 10
    assert torch.equal(data.train.x, x[:25])
    assert torch.equal(data.valid.x, x[25:])
    assert torch.equal(data.test.x, torch.from_numpy(ARRAYS["test_x"]))
    assert torch.equal(data.train.labels, labels[:25])
    assert torch.equal(data.valid.labels, labels[25:])
    assert data.test.labels.tolist() == list(range(8))


@pytest.mark.usefixtures("files")
def test_the_default_is_dynamic_binarisation(root):
    data = MNIST(root=root)
    assert (data.description.levels, data.description.binarization) == (2, "dynamic")
    assert int(data.train.x.max()) == 255
    assert int(data.valid.x.max()) == 1


def test_a_file_of_another_checksum_is_refused(root, files):
    path = root / files["train_x"][0].path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is not the published file"):
        MNIST(root=root)


def test_every_file_has_a_checksum_homes_and_a_plain_version():
    for packed, plain in MNIST.FILES.values():
        assert packed.path == plain.path + ".gz"
        assert len(packed.digest) == len(plain.digest) == len("sha256:") + 64
        assert len(packed.urls) == 3
        assert all(url.endswith(packed.path.removeprefix("mnist/")) for url in packed.urls)


@pytest.mark.data
def test_the_real_files(data_root):
    data = MNIST(root=data_root)
    assert data.description.sizes == {"train": 50_000, "valid": 10_000, "test": 10_000}
    assert data.train.labels.bincount().tolist() == [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988]
    assert data.test.x.float().mean() == pytest.approx(33.7912 / 255, abs=2e-4)
    digest = hashlib.sha256(data.test.x.numpy().tobytes()).hexdigest()  # all published numbers are of these bits
    assert digest == "de1ebc65bf1441d825f0f37920fdcaa3867656bdeffbbfc36ca367143e451e37"


@pytest.mark.data
def test_the_variable_names_the_folder(data_root, monkeypatch):
    monkeypatch.setenv("PYRO_DGM_DATA", str(data_root))
    assert MNIST(binarization="none").train.x.float().mean() == pytest.approx(33.3952, abs=1e-3)


@pytest.mark.data
def test_real_files_unpacked(data_root, root):
    (root / "mnist").mkdir()
    for path in PATHS.values():
        (root / path).write_bytes(gzip.decompress((data_root / f"{path}.gz").read_bytes()))
    assert torch.equal(MNIST(root=root).test.x, MNIST(root=data_root).test.x)
