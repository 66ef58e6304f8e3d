# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Digits are there without a network, and their split never changes."""

import hashlib

import pytest
import torch

from pyro_dgm.data import Digits


def test_sizes_levels_and_labels():
    data = Digits()
    assert data.description.sizes == {"train": 1297, "valid": 250, "test": 250}
    assert (data.description.levels, data.description.shape) == (17, (8, 8))
    assert data.train.x.dtype == torch.uint8
    assert torch.cat([split.x for split in (data.train, data.valid, data.test)]).unique().tolist() == list(range(17))
    assert all(split.labels.unique().tolist() == list(range(10)) for split in (data.train, data.valid, data.test))


def test_every_image_is_in_one_split():
    from sklearn.datasets import load_digits

    data = Digits()
    together = torch.cat([split.x for split in (data.train, data.valid, data.test)]).flatten(1).tolist()
    assert sorted(together) == sorted(load_digits().data.astype(int).tolist())


def test_the_split_is_the_one_of_the_first_release():
    digest = hashlib.sha256(Digits().test.x.numpy().tobytes()).hexdigest()
    assert digest == "d5389dc2017b982d81fb0300b502ff6be6d86513f8030d934ea7b0917aacab4c"


@pytest.mark.parametrize("binarization", ["dynamic", "static"])
def test_binarised(binarization):
    data = Digits(binarization=binarization)
    assert (data.description.levels, data.description.grey_levels) == (2, 17)
    assert next(iter(data.batches(batch_size=100))).unique().tolist() == [0, 1]
    assert data.test.x.unique().tolist() == [0, 1]
    assert int(data.train.x.max()) == (16 if binarization == "dynamic" else 1)
