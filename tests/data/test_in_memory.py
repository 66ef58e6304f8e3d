# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Tensors and arrays of one's own become a data set, or an error that says what to change."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.data import InMemory, Split

X = torch.arange(60).reshape(10, 2, 3) % 5


@given(st.integers(3, 300), st.integers(0, 9))
def test_the_split_uses_every_datum_once(size, seed):
    x = torch.arange(size).unsqueeze(1)
    data = InMemory(Split(x, x.squeeze(1)), levels=300, seed=seed)
    splits = (data.train, data.valid, data.test)
    assert sorted(torch.cat([split.x for split in splits]).squeeze(1).tolist()) == list(range(size))
    assert all(torch.equal(split.x.squeeze(1).long(), split.labels) for split in splits)
    assert len(data.valid) == len(data.test) == max(1, size // 10)


def test_the_seed_decides_the_split():
    splits = [InMemory(X, levels=5, seed=seed).test.x for seed in range(9)]
    assert torch.equal(splits[0], InMemory(X, levels=5).test.x)
    assert len({tuple(x.flatten().tolist()) for x in splits}) > 1


def test_given_splits_are_kept_and_any_kind_of_array_is_taken():
    read_only = X.numpy().copy()
    read_only.flags.writeable = False
    data = InMemory(X, levels=5, valid=read_only, test=Split(X[:4].flip(0)), binarization="dynamic", name="Mine")
    assert torch.equal(data.train.x.long(), X)
    assert data.description.sizes == {"train": 10, "valid": 10, "test": 4}
    assert data.description.levels == 2
    assert InMemory(np.asfortranarray(X.numpy())[::-1], levels=5).description.shape == (2, 3)


def test_one_datum_is_enough_if_all_splits_are_given():
    data = InMemory(X[:1], levels=5, valid=X[:1], test=X[:1])
    assert len(next(iter(data.batches(batch_size=1)))) == 1
    with pytest.raises(ValueError, match=r"got 1 data: the batch size must lie in 1\.\.1"):
        data.batches(batch_size=128)


def test_real_numbers_are_taken_as_they_are():
    data = InMemory(X.numpy() / 4, levels=None)
    assert data.description.levels is None
    assert data.train.x.dtype == torch.get_default_dtype()
    assert sorted(torch.cat([data.train.x, data.valid.x, data.test.x]).tolist()) == sorted((X / 4).tolist())


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (X.numpy() / 4, {}, TypeError, r"InMemory\.train got torch.float64 data of size 0 to 1"),
        (np.full((5, 2), np.nan), {}, TypeError, "with NaN"),
        (np.full((5, 2), np.nan), {"levels": None}, ValueError, r"InMemory\.train got NaN.*3 of 3 rows: 0, 1, 2 "),
        (X, {"levels": None}, TypeError, "where real numbers were needed"),
        (X, {"levels": 4}, ValueError, "values from 0 to 4: with 4 levels"),
        (-X, {}, ValueError, "values from -4 to 0"),
        (X[:0], {}, ValueError, "got 0 data.*at least 3"),
        (X[:1], {}, ValueError, "got 1 data.*at least 3"),
        (X[:0], {"valid": X, "test": X}, ValueError, "at least one datum"),
        (X, {"valid": X}, ValueError, "only one of valid and test"),
        (X, {"valid": X, "test": X[:, :1]}, ValueError, "different shapes"),
    ],
)
def test_what_is_no_data_is_an_error(x, options, error, message):
    with pytest.raises(error, match=message):
        InMemory(x, **({"levels": 5} | options))
