# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A MADE's outputs for a dimension see the dimensions before it, all of them where it is wide enough, and no other."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_dgm.nn.made import MADE


def seen(net, context=None):
    """Whether output i depends on input j, by autograd at a random point and random weights."""
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    biases = net.biases(context)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x, biases), torch.randn(net.dim))
    return jacobian.ne(0).any(1)


def before(order):
    """Whether j comes before i in the order."""
    rank = torch.tensor(order).argsort()
    return rank.unsqueeze(1) > rank


orders = st.integers(1, 6).flatmap(lambda dim: st.permutations(range(dim)))


@given(orders, st.lists(st.integers(1, 9), max_size=3), st.integers(1, 3), st.booleans())
def test_outputs_see_what_is_before_them_only(order, hidden, outputs, has_context):
    dim = len(order)
    net = MADE(dim, outputs, hidden=hidden, order=order, context_dim=2 if has_context else None, activation=nn.Tanh)
    assert not (seen(net, torch.randn(2) if has_context else None) & ~before(order)).any()


@given(orders, st.lists(st.integers(12, 20), max_size=3), st.booleans())
def test_outputs_see_all_that_is_before_them_where_layers_are_wide(order, hidden, has_context):
    dim = len(order)
    net = MADE(dim, 2, hidden=hidden, order=order, context_dim=2 if has_context else None, activation=nn.Tanh)
    assert (seen(net, torch.randn(2) if has_context else None) == before(order)).all()


@pytest.mark.parametrize("hidden", [[1], [2, 1], [3, 3, 3]])
def test_narrow_layers_show_the_last_output_all_the_others(hidden):
    assert seen(MADE(9, 1, hidden=hidden, activation=nn.Tanh))[-1].tolist() == [True] * 8 + [False]


@pytest.mark.parametrize(("width", "dim", "context_dim"), [(7, 3, None), (7, 3, 2), (64, 10, None), (5, 6, None)])
def test_degrees_are_spread_evenly_and_ascend(width, dim, context_dim):
    degrees = MADE(dim, 1, hidden=[width], context_dim=context_dim).degrees[0]
    counts = Counter(degrees)
    assert list(counts) == list(range(1 if context_dim is None else 0, dim))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(a <= b for a, b in pairwise(degrees))


def test_one_dimension_sees_the_context_only_and_not_just_linearly():
    net = MADE(1, 2, hidden=[16], context_dim=3, activation=nn.Tanh)
    context = torch.randn(3)
    assert not seen(net, context).any()
    hessian = torch.autograd.functional.hessian(lambda h: net(torch.zeros(1), net.biases(h)).sum(), context)
    assert hessian.abs().max() > 1e-3


def test_one_dimension_without_context_is_a_constant():
    net = MADE(1, 2, hidden=[4])
    assert not seen(net).any()
    assert net(torch.randn(5, 1)).shape == (5, 1, 2)


def test_a_context_reaches_every_layer_through_biases_computed_once():
    net = MADE(3, 2, hidden=[8, 9], context_dim=4)
    biases = net.biases(torch.randn(5, 4))
    assert [bias.shape for bias in biases] == [(5, 8), (5, 9), (5, 6)]
    for bias in biases:
        assert (bias[0] != bias[1]).all()
    x = torch.randn(7, 5, 3)
    raw = net(x, biases)
    assert raw.shape == (7, 5, 3, 2)
    torch.testing.assert_close(raw[2, 3], net(x[2, 3], [bias[3] for bias in biases]))


def test_leading_dimensions_do_not_matter():
    net = MADE(3, 2)
    x = torch.randn(4, 5, 3)
    torch.testing.assert_close(net(x)[1, 2], net(x[1, 2]))
    assert net(torch.randn(0, 3)).shape == (0, 3, 2)


def test_outputs_start_small_where_they_should():
    torch.manual_seed(0)
    x, h = torch.randn(100, 5), torch.randn(100, 3)
    small, large = MADE(5, 2, context_dim=3, last_scale=0.01), MADE(5, 2, context_dim=3)
    assert small(x, small.biases(h)).abs().max() < 0.03
    assert large(x, large.biases(h)).std() > 0.1


def test_masks_follow_the_device_and_dtype_but_are_not_saved():
    net = MADE(3, 2, order=[2, 0, 1]).double()
    assert net(torch.randn(3, dtype=torch.float64)).dtype == torch.float64
    assert {name.split(".")[-1] for name in net.state_dict()} == {"weight", "bias"}
    assert net.to("meta")(torch.empty(4, 3, device="meta", dtype=torch.float64)).shape == (4, 3, 2)


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_an_order_names_every_dimension_once(order):
    with pytest.raises(ValueError, match=r"MADE\(dim=3\) got order=.*each of 0 to 2 once"):
        MADE(3, 2, order=order)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": [4, 0]}, r"MADE got hidden=\(4, 0\)"),
        ({"outputs": 0}, r"MADE got outputs=\(0,\)"),
        ({"dim": -1}, r"MADE got dim=\(-1,\)"),
        ({"context_dim": 0}, r"MADE got context_dim=\(0,\)"),
        ({"activation": nn.PReLU}, "MADE got activation=PReLU, which has parameters"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MADE(**{"dim": 3, "outputs": 2, **options})


def test_x_and_contexts_of_the_wrong_size_are_named():
    net, conditional = MADE(3, 2), MADE(3, 2, context_dim=4)
    with pytest.raises(ValueError, match=r"MADE\(dim=3\) got x of shape \(5, 4\): its last size must be 3"):
        net(torch.randn(5, 4))
    for which, context in ((net, torch.randn(5, 4)), (conditional, torch.randn(5, 3)), (conditional, None)):
        with pytest.raises(ValueError, match=r"got a context of size .*the two must agree"):
            which.biases(context)
