# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every data set keeps to: integers within its levels, or finite reals, and a description that says the truth."""

import dataclasses

import pytest
import torch

from tests.cases import DATASETS, DATASETS_OF_FILES

PAPERS = {  # sizes of train, valid and test as the papers have them
    "Caltech101Silhouettes": (4100, 2264, 2307),
    "FreyFaces": (1565, 200, 200),
    "MNIST": (50_000, 10_000, 10_000),
    "MNIST (grey)": (50_000, 10_000, 10_000),
    "StaticMNIST": (50_000, 10_000, 10_000),
}


def check(dataset):
    description = dataset.description
    for name in ("train", "valid", "test"):
        split = getattr(dataset, name)
        assert split.x.shape == (description.sizes[name], *description.shape)
        assert split.labels is None or len(split.labels) == len(split.x)
        assert split.x.is_floating_point() == (description.levels is None)
        if description.levels is None:
            assert split.x.isfinite().all()
            continue
        levels = description.grey_levels if name == "train" else description.levels
        assert split.x.min().item() >= 0
        assert split.x.max().item() < levels
    batch = next(iter(dataset.batches(batch_size=5)))
    assert batch.shape == (5, *description.shape)
    assert description.levels is None or batch.max().item() < description.levels
    assert all([description.licence, description.source, str(description)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        description.levels = 3


@pytest.mark.parametrize("name", DATASETS)
def test_data_that_need_no_files(name, tmp_path):
    check(DATASETS[name](tmp_path))


@pytest.mark.data
@pytest.mark.parametrize("name", DATASETS_OF_FILES)
def test_data_made_of_files(name, data_root):
    dataset = DATASETS_OF_FILES[name](data_root)
    check(dataset)
    if name in PAPERS:
        assert tuple(dataset.description.sizes[split] for split in ("train", "valid", "test")) == PAPERS[name]


@pytest.mark.data
def test_fixed_bits_have_the_published_share_of_ink(data_root):
    x = DATASETS_OF_FILES["StaticMNIST"](data_root)
    shares = [split.x.double().mean().item() for split in (x.train, x.valid, x.test)]
    assert torch.allclose(torch.tensor(shares), torch.tensor([0.13056, 0.13113, 0.13251]), atol=1e-5)
