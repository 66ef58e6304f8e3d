# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Tables are split by their order and standardised, and say how log-densities follow from that."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.data import Table

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = X * torch.tensor([1e-3, 1.0, 50.0, 7.0]).double() + torch.tensor([5.0, 0.0, 1e4, -3.0]).double()


def whole(data):
    return torch.cat([data.train.x, data.valid.x, data.test.x])


@given(st.integers(3, 400))
def test_the_split_is_the_published_one(size):
    x = torch.arange(size, dtype=torch.float64).unsqueeze(1)
    data = Table(x, standardize="none")
    test = max(1, int(0.1 * size))
    valid = max(1, int(0.1 * (size - test)))
    assert data.description.sizes == {"train": size - test - valid, "valid": valid, "test": test}
    assert torch.equal(whole(data).double(), x)


@pytest.mark.parametrize(("standardize", "rows"), [("train", 162), ("train+valid", 180)])
def test_columns_are_standardised_by_a_part_of_the_rows(standardize, rows):
    data = Table(X, standardize=standardize)
    part = whole(data).double()[:rows]
    torch.testing.assert_close(part.mean(0), torch.zeros(4).double(), atol=2e-6, rtol=0)
    torch.testing.assert_close(part.square().mean(0), torch.ones(4).double(), atol=2e-6, rtol=0)
    np.testing.assert_allclose(data.loc, X.numpy()[:rows].mean(0))
    np.testing.assert_allclose(data.scale, X.numpy()[:rows].std(0))
    assert data.train.x.dtype == torch.get_default_dtype()


def test_the_log_density_of_raw_rows_follows():
    data = Table(X)
    raw = torch.distributions.MultivariateNormal(data.loc, torch.diag(data.scale**2)).log_prob(X)
    row = torch.distributions.Normal(0.0, 1.0).log_prob((X - data.loc) / data.scale).sum(1)
    torch.testing.assert_close(raw, row - data.log_det)
    assert f"log p(row) - {data.log_det:.2f} nats" in str(data.description) or data.log_det < 0
    assert "log p(row) + " in Table(X / 1e6).description.unit
    torch.testing.assert_close(data.raw(whole(data).double()), X, atol=1e-3, rtol=1e-6)


def test_nothing_is_changed_if_nothing_is_to_be_standardised():
    data = Table(X.float(), standardize="none")
    assert torch.equal(whole(data), X.float())
    assert (data.log_det, data.description.unit) == (0.0, "")
    assert torch.equal(data.raw(X), X)


def test_a_seed_shuffles_rows_with_their_labels():
    labels = torch.arange(200)
    data = Table(X, labels=labels, standardize="none", seed=3)
    order = torch.cat([data.train.labels, data.valid.labels, data.test.labels])
    assert sorted(order.tolist()) == labels.tolist() != order.tolist()
    assert torch.equal(whole(data), X[order].float())
    assert torch.equal(whole(Table(X, standardize="none", seed=3)), whole(data))


def test_moving_copying_and_numpy(device):
    data = Table(X.numpy())
    moved = data.to(device)
    assert moved.train.x.device.type == device.type
    assert moved.raw(moved.test.x).device.type == device.type
    assert torch.equal(copy.deepcopy(data).test.x, data.test.x)


def changed(row, column, value):
    x = X.clone()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (changed(7, 2, torch.nan), {}, ValueError, "Table got NaN or infinite values in 1 of 200 rows: 7 .from 0"),
        (changed(slice(90, None), 1, torch.inf), {}, ValueError, "110 of 200 rows: 90, 91, 92, 93, 94 and 105 more"),
        (changed(slice(None), 1, 0.1), {}, ValueError, "same number in all 162 rows of column 1: no density"),
        (changed(slice(162), 3, 0.1), {"columns": list("abcd")}, ValueError, "all 162 rows of column d"),
        (X, {"columns": ["a"]}, ValueError, "1 names for 4 columns"),
        (X[:2], {}, ValueError, r"shape \(2, 4\).*at least 3 rows"),
        (X[:, 0], {}, ValueError, r"shape \(200,\)"),
        (X.reshape(50, 4, 4), {}, ValueError, "`InMemory` takes data of other shapes"),
        (X.long(), {}, TypeError, "where real numbers were needed"),
        (X, {"labels": torch.zeros(3).long()}, ValueError, "3 labels for 200 rows"),
    ],
)
def test_what_is_no_table_is_an_error(x, options, error, message):
    with pytest.raises(error, match=message):
        Table(x, **options)


def test_a_misspelt_rule_is_an_error():
    with pytest.raises((ValueError, TypeError), match="everything"):
        Table(X, standardize="everything")
