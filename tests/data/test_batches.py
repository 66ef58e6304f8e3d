# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Every epoch is a new order of all data, and a resumed feed equals an uninterrupted one to the bit."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.data import Batches

GREY = torch.arange(11 * 60, dtype=torch.int64).mul(7).remainder(256).to(torch.uint8).reshape(11, 6, 10)


def epochs(batches, number):
    return [[x.clone() for x in batches] for _ in range(number)]


@given(st.integers(1, 40), st.data(), st.booleans(), st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(size, data, drop_last, seed):
    batch_size = data.draw(st.integers(1, size))
    batches = Batches(torch.arange(size).unsqueeze(1), batch_size=batch_size, seed=seed, drop_last=drop_last)
    for found in epochs(batches, 2):
        assert len(found) == len(batches)
        seen = torch.cat(found).squeeze(1).tolist()
        assert len(set(seen)) == len(seen) == (len(batches) * batch_size if drop_last else size)
        assert all(len(x) == batch_size for x in found[: len(found) if drop_last else -1])


def test_epochs_and_seeds_differ(device):
    x = torch.arange(1000, device=device).unsqueeze(1)
    first, second = (torch.cat(found) for found in epochs(Batches(x, batch_size=100), 2))
    other = torch.cat(epochs(Batches(x, batch_size=100, seed=1), 1)[0])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.device == x.device


@given(st.integers(0, 11), st.integers(1, 11), st.sampled_from([None, 256]), st.sampled_from(["state", "break"]))
def test_a_resumed_feed_equals_an_uninterrupted_one(device, split, batch_size, grey_levels, how):
    x = GREY.to(device)
    whole = list(itertools.chain(*epochs(Batches(x, batch_size=batch_size, grey_levels=grey_levels, seed=5), 3)))
    batches = Batches(x, batch_size=batch_size, grey_levels=grey_levels, seed=5)
    start = split % len(batches)
    found = epochs(batches, 1)[0] + [x.clone() for x in itertools.islice(batches, start)]
    if how == "state":
        state = json.loads(json.dumps(batches.state_dict()))
        batches = Batches(x, batch_size=batch_size, grey_levels=grey_levels, seed=99)
        batches.load_state_dict(state)
    assert (batches.epoch, batches.position) == (1, start)
    found += list(itertools.chain(*epochs(batches, 2)))
    assert len(found) == len(whole)
    assert all(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


def test_a_feed_that_stopped_after_the_last_batch_ends_its_epoch():
    batches = Batches(GREY, batch_size=4)
    reader = iter(batches)
    for _ in range(3):
        next(reader)
    resumed = Batches(GREY, batch_size=4)
    resumed.load_state_dict(batches.state_dict())
    assert [len(found) for found in epochs(resumed, 2)] == [0, 3]


def test_bits_are_new_in_every_epoch_and_right_on_average(device):
    grey = torch.tensor([[0, 51, 204, 255]], dtype=torch.uint8, device=device).expand(5000, 4)
    batches = Batches(grey, batch_size=1000, grey_levels=256)
    first, second = (torch.cat(found) for found in epochs(batches, 2))
    assert first.dtype == torch.uint8
    assert (first != second).any(0).tolist() == [False, True, True, False]
    for bits in (first, second):
        torch.testing.assert_close(
            bits.double().mean(0).cpu(), torch.tensor([0, 0.2, 0.8, 1]).double(), atol=0.03, rtol=0
        )


def test_grey_data_stay_as_they_are():
    batches = Batches(GREY, batch_size=2, grey_levels=256)
    before = GREY.clone()
    epochs(batches, 1)
    assert torch.equal(GREY, before)


def test_the_global_generators_are_neither_read_nor_written(device):
    batches = Batches(GREY.to(device), batch_size=3, grey_levels=256)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = epochs(batches, 1)[0]
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    torch.manual_seed(17)
    again = epochs(Batches(GREY.to(device), batch_size=3, grey_levels=256), 1)[0]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_two_loops_at_once_are_an_error():
    batches = Batches(GREY, batch_size=2)
    old = iter(batches)
    next(old)
    next(iter(batches))
    with pytest.raises(RuntimeError, match="another loop"):
        next(old)


def test_a_state_loaded_inside_a_loop_ends_it():
    batches = Batches(GREY, batch_size=2)
    state = batches.state_dict()
    reader = iter(batches)
    next(reader)
    batches.load_state_dict(state)
    with pytest.raises(RuntimeError, match="load_state_dict"):
        next(reader)


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 3},
        {"grey_levels": None},
        {"drop_last": True},
        {"x": GREY[:9]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_state_of_another_feed_is_an_error(other):
    options = {"x": GREY, "batch_size": 2, "grey_levels": 256, "drop_last": False}
    state = Batches(**options).state_dict()
    with pytest.raises(ValueError, match="cannot continue a feed"):
        Batches(**(options | other)).load_state_dict(state)


@pytest.mark.parametrize("change", [{"position": 7}, {"position": -1}, {"epoch": None}])
def test_a_damaged_state_is_an_error(change):
    batches = Batches(GREY, batch_size=2)
    with pytest.raises(ValueError, match="were needed"):
        batches.load_state_dict(batches.state_dict() | change)


@pytest.mark.parametrize("batch_size", [0, -1, 12])
def test_a_batch_size_outside_the_set_is_an_error(batch_size):
    with pytest.raises(ValueError, match=r"got 11 data: the batch size must lie in 1\.\.11"):
        Batches(GREY, batch_size=batch_size)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (GREY.float(), {"grey_levels": 256}, TypeError, "integers"),
        (GREY.flatten(1).float().div(0), {}, ValueError, r"infinite values in 11 of 11 rows: 0, 1, 2, 3, 4 and 6 more"),
        (torch.zeros(3), {}, ValueError, r"shape \(3,\)"),
        (GREY[:0], {}, ValueError, "at least one datum"),
        (torch.arange(3), {}, ValueError, r"shape \(3,\)"),
        (GREY, {"grey_levels": 17}, ValueError, "from 0 to 255"),
        (GREY, {"grey_levels": 300}, ValueError, "2 to 256"),
        (GREY, {"seed": -1}, ValueError, "non-negative"),
    ],
)
def test_what_cannot_be_fed_is_an_error(x, options, error, message):
    with pytest.raises(error, match=message):
        Batches(x, batch_size=2, **options)


def test_a_set_of_one_datum_can_be_fed():
    assert [x.shape for x in Batches(GREY[:1], batch_size=1)] == [(1, 6, 10)]


def test_booleans_are_fed_as_integers():
    assert next(iter(Batches(GREY > 9, batch_size=2))).dtype == torch.uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_numbers_keep_their_type(dtype):
    x = torch.randn(10, 3, dtype=dtype)
    found = torch.cat(list(Batches(x, batch_size=4)))
    assert found.dtype == dtype
    assert sorted(found.tolist()) == sorted(x.tolist())


def test_wide_integers_keep_their_type():
    x = torch.arange(1000).reshape(10, 100)
    assert next(iter(Batches(x, batch_size=2))).dtype == torch.int64
