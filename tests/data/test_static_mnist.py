# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""StaticMNIST is read from Larochelle's text, packed or plain."""

import gzip

import numpy as np
import pytest
import torch

from pyro_dgm.data import StaticMNIST

BITS = {
    split: np.random.RandomState(size).randint(2, size=(size, 784), dtype=np.uint8)
    for split, size in {"train": 6, "valid": 3, "test": 2}.items()
}


@pytest.mark.parametrize("packed", [True, False])
def test_synthetic_files(root, put, monkeypatch, packed):
    copies = {}
    for split, bits in BITS.items():
        text = "".join(" ".join(map(str, row)) + "\n" for row in bits.tolist()).encode()
        name = f"binarized_mnist/binarized_mnist_{split}.amat"
        copies[split] = (put(name + ".gz", gzip.compress(text)) if packed else put(name, text),)
    monkeypatch.setattr(StaticMNIST, "FILES", copies)
    data = StaticMNIST(root=root)
    for split, bits in BITS.items():
        assert torch.equal(getattr(data, split).x, torch.from_numpy(bits).view(-1, 28, 28))
    assert (data.description.levels, data.description.grey_levels, data.description.binarization) == (2, 2, "static")
    assert data.train.labels is None
    assert data.batches(batch_size=2).grey_levels is None


@pytest.mark.data
def test_the_real_files(data_root):
    data = StaticMNIST(root=data_root)
    assert data.description.sizes == {"train": 50_000, "valid": 10_000, "test": 10_000}
    means = [split.x.float().mean().item() for split in (data.train, data.valid, data.test)]
    assert means == pytest.approx([0.13056, 0.13113, 0.13251], abs=1e-5)


@pytest.mark.data
def test_the_official_text_is_accepted(data_root, root):
    (root / "binarized_mnist").mkdir()
    for split in ("train", "valid", "test"):
        name = f"binarized_mnist/binarized_mnist_{split}.amat"
        (root / name).write_bytes(gzip.decompress((data_root / f"{name}.gz").read_bytes()))
    assert torch.equal(StaticMNIST(root=root).test.x, StaticMNIST(root=data_root).test.x)
