# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The streams are uniform, independent of global state, and the same for ever."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.data.noise import permutation, stream, uniform_bytes

seeds = st.integers(0, 2**64)


@given(st.integers(1, 256), st.integers(1, 3000), seeds)
def test_bytes_have_the_right_number_and_range(below, count, seed):
    drawn = uniform_bytes(stream(seed), count, below=below)
    assert drawn.shape == (count,)
    assert drawn.dtype == torch.uint8
    assert int(drawn.max()) < below


@pytest.mark.parametrize("below", [1, 3, 16, 129, 200, 255, 256])
def test_bytes_are_uniform(below):
    from scipy.stats import chisquare

    counts = np.bincount(uniform_bytes(stream(1), 200_000, below=below).numpy(), minlength=below)
    assert len(counts) == below
    assert below == 1 or chisquare(counts).pvalue > 1e-3


def test_bytes_are_those_of_the_stream_without_the_ones_that_would_bias_them():
    words = stream(5).random_raw(200).astype("<u8").view(np.uint8)
    kept = words[words < 192] % 96
    np.testing.assert_array_equal(uniform_bytes(stream(5), 500, below=96).numpy(), kept[:500])


@given(st.integers(0, 300), seeds)
def test_a_permutation_has_every_index_once(size, seed):
    assert torch.equal(permutation(size, seed).sort().values, torch.arange(size))


def test_the_seed_and_how_many_numbers_it_has_decide():
    orders = [tuple(permutation(50, *seed).tolist()) for seed in ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0))]
    assert len(set(orders)) == len(orders)
    assert orders[1] == tuple(permutation(50, 1).tolist())


def test_a_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="non-negative"):
        stream(0, -1)


def test_the_global_generators_are_neither_read_nor_written():
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = permutation(100, 0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    torch.manual_seed(4)
    np.random.seed(4)
    assert torch.equal(first, permutation(100, 0))


def test_the_streams_are_the_ones_of_the_first_release():
    drawn = uniform_bytes(stream(0), 10_000, below=255).numpy().tobytes() + permutation(1000, 0).numpy().tobytes()
    assert hashlib.sha256(drawn).hexdigest() == "ff73e8b821b9d5b00f0dab94d6816bacb8a83edb112bc4f43d8b6ee8bf8cd279"
