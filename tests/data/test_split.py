# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Data that models could not rely on are refused with an error that says who, what came and what was needed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.data import Split

X = torch.arange(24).reshape(6, 2, 2)


@given(st.integers(2, 300), st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16]))
def test_integers_of_any_type_become_bytes_where_they_fit(levels, dtype):
    x = (torch.arange(24).reshape(6, 4) % min(levels, 256)).to(dtype)
    found = Split(x, torch.arange(6, dtype=torch.int32)).checked("Set", levels=levels)
    assert found.x.dtype == (torch.uint8 if levels <= 256 else torch.int64)
    assert found.labels.dtype == torch.int64
    assert torch.equal(found.x.long(), x.long())


def test_booleans_are_bits():
    assert Split(X > 3).checked("Set", levels=2).x.dtype == torch.uint8


@pytest.mark.parametrize(
    ("x", "levels", "error", "message"),
    [
        (X / 24, 256, TypeError, r"Set got torch.float32 data of size 0 to 0.95.*integers 0\.\.255.*round"),
        (torch.full((2, 2), torch.nan), 256, TypeError, "with NaN"),
        (torch.zeros(0, 2), 256, TypeError, r"\(empty\)"),
        (X.to(torch.complex64), 256, TypeError, "complex64"),
        (X, 23, ValueError, r"values from 0 to 23: with 23 levels they must lie in 0\.\.22.*at least 24"),
        (X - 1, 256, ValueError, "values from -1 to 22"),
        (X.to(torch.uint8), 8, ValueError, "values from 0 to 23"),
        (X[:0], 256, ValueError, r"shape \(0, 2, 2\).*at least one datum"),
        (X[:, :0], 256, ValueError, "at least one datum"),
        (torch.arange(3), 256, ValueError, r"shape \(3,\)"),
    ],
)
def test_data_that_are_no_such_integers(x, levels, error, message):
    with pytest.raises(error, match=message):
        Split(x).checked("Set", levels=levels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(6), TypeError, "float32 labels"),
        (torch.zeros(5, dtype=torch.int64), ValueError, r"shape \(5,\) for 6 data"),
        (torch.zeros(6, 1, dtype=torch.int64), ValueError, r"\(6,\) was needed"),
    ],
)
def test_labels_that_do_not_fit(labels, error, message):
    with pytest.raises(error, match=message):
        Split(X, labels).checked("Set", levels=24)


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_real_numbers_get_the_default_type(dtype):
    found = Split(X.to(dtype) / 8).checked("Set", levels=None).x
    assert found.dtype == torch.get_default_dtype()
    assert torch.equal(found, X / 8)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X, TypeError, r"Set got torch.int64 data where real numbers were needed.*number of their levels"),
        (X.to(torch.complex64), TypeError, "complex64 data where real numbers"),
        (torch.tensor([[1.0], [torch.nan]]), ValueError, "NaN or infinite values in 1 of 2 rows: 1 "),
        (torch.tensor([[1e300]], dtype=torch.float64), ValueError, "1 of 1 rows: 0 "),
        (torch.zeros(0, 2), ValueError, r"shape \(0, 2\).*at least one datum"),
        (torch.zeros(3), ValueError, r"shape \(3,\)"),
    ],
)
def test_data_that_are_no_real_numbers(x, error, message):
    with pytest.raises(error, match=message):
        Split(x).checked("Set", levels=None)


def test_selecting_keeps_the_labels_with_their_data():
    split = Split(X, X[:, 0, 0])
    for index in (slice(1, 4), torch.tensor([5, 0]), torch.arange(6) % 2 == 0):
        assert torch.equal(split[index].x[:, 0, 0], split[index].labels)
    assert split[:2].x.shape == (2, 2, 2)
    assert Split(X)[:2].labels is None


def test_moving(device):
    moved = Split(X, X[:, 0, 0]).to(device)
    assert moved.x.device.type == moved.labels.device.type == device.type
    assert Split(X).to(device).labels is None
    assert len(moved) == 6
