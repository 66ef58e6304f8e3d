# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A permutation moves elements and volume stays; its order is saved and travels with the module."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.transforms.permute import Permute


@given(st.integers(1, 9).flatmap(lambda dim: st.permutations(range(dim))))
def test_it_indexes_and_its_inverse_undoes_it_to_the_bit(order):
    flow, x = Permute(order), torch.randn(2, 3, len(order), dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    assert torch.equal(y, x[..., order])
    assert torch.equal(flow.inverse_and_logdet(y)[0], x)
    assert torch.equal(logdet, torch.zeros(2, 3, dtype=torch.float64))


def test_the_order_is_in_the_state_dict():
    flow, other, x = Permute.random(20), Permute.reverse(20), torch.randn(20)
    assert not torch.equal(flow(x), other(x))
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(x), other(x))
    assert torch.equal(other.inv(flow(x)), x)


def test_reverse_and_random():
    assert Permute.reverse(4).order.tolist() == [3, 2, 1, 0]
    drawn = {tuple(Permute.random(3).order.tolist()) for _ in range(100)}
    assert len(drawn) == 6


def test_it_moves_with_the_module():
    flow = Permute([1, 0, 2]).to("meta")
    x = torch.empty(4, 3, device="meta")
    assert flow(x).device.type == flow.inverse_and_logdet(x)[0].device.type == "meta"


@pytest.mark.parametrize("order", [[], [1, 2], [0, 0], [0, 2], [-1, 0]])
def test_an_order_that_is_no_permutation(order):
    with pytest.raises(ValueError, match=r"Permute got order=.*each of 0 \.\.\. \d+ once"):
        Permute(order)


@pytest.mark.parametrize("make", [Permute.reverse, Permute.random])
def test_a_dimension_that_is_none(make):
    with pytest.raises(ValueError, match=r"Permute got order=\[\]"):
        make(0)
