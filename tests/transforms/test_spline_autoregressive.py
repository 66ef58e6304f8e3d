# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The autoregressive spline bends each element by what those before it say, in the order that is asked for."""

import math

import pytest
import torch

from pyro_dgm.transforms.rational_quadratic import RationalQuadratic
from pyro_dgm.transforms.spline_autoregressive import SplineAutoregressive


@torch.no_grad()
def stirred(flow, scale=1.0):
    """The flow with random parameters, in double precision."""
    for parameter in flow.parameters():
        parameter.copy_(scale * torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
    return flow.double()


def data(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("order", [None, [3, 2, 1, 0], [2, 0, 3, 1]])
def test_elements_depend_on_those_before_them_and_the_log_det_is_that_of_the_jacobian(order):
    flow, x = stirred(SplineAutoregressive(4, order=order, hidden=(20, 20))), data(5, 4)
    y, logdet = flow.forward_and_logdet(x)
    back, logdet_back = flow.inverse_and_logdet(y)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(logdet_back, -logdet, rtol=0, atol=1e-8)
    by_y = torch.autograd.functional.jacobian(lambda y: flow.inverse_and_logdet(y)[0].sum(0), y).movedim(1, 0)
    torch.testing.assert_close(logdet_back, by_y.slogdet().logabsdet, rtol=0, atol=1e-8)
    steps = list(range(4)) if order is None else order
    triangle = by_y[:, steps][:, :, steps]
    assert triangle.equal(triangle.tril())
    assert triangle.tril(-1).abs().amax(0).count_nonzero() == 6


def test_it_is_one_spline_after_the_other():
    flow, y = stirred(SplineAutoregressive(3, order=[1, 2, 0], bins=4, bound=2, hidden=(10,))), data(6, 3)
    x, logdet = flow.inverse_and_logdet(y)
    spline, total = RationalQuadratic(4, 2), torch.zeros(6, dtype=torch.float64)
    seen = torch.full_like(y, math.pi)  # what is not known yet must not matter
    for i in (1, 2, 0):
        expected, log_slope = spline.inverse_and_logdet(y[:, i], flow.net(seen)[:, i])
        torch.testing.assert_close(x[:, i], expected)
        seen[:, i], total = y[:, i], total + log_slope
    torch.testing.assert_close(logdet, total)


@pytest.mark.parametrize("context_dim", [None, 2])
def test_with_a_last_layer_of_zeros_it_is_the_identity(context_dim):
    flow = SplineAutoregressive(5, context_dim=context_dim)
    with torch.no_grad():
        flow.net.linear[-1].weight.zero_()
        if context_dim is not None:
            flow.net.context.weight.zero_()
    flow = flow if context_dim is None else flow.condition(torch.randn(7, 2))
    x = torch.randn(7, 5)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(y, x, rtol=0, atol=0)
    torch.testing.assert_close(logdet, torch.zeros(7), rtol=0, atol=0)


def test_every_datum_has_its_own_context():
    flow = stirred(SplineAutoregressive(3, context_dim=2))
    x, context = data(4, 5, 3), data(5, 2)
    y, logdet = flow.condition(context).forward_and_logdet(x)
    for b in range(5):
        one, log_one = flow.condition(context[b]).forward_and_logdet(x[:, b])
        torch.testing.assert_close(one, y[:, b])
        torch.testing.assert_close(log_one, logdet[:, b])
    torch.testing.assert_close(flow.condition(context).inverse_and_logdet(y)[0], x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients_are_those_of_finite_differences(direction):
    flow = stirred(SplineAutoregressive(3, context_dim=2, hidden=(8,), bins=3, activation=torch.nn.Tanh))
    x, context = data(3, 3).requires_grad_(), data(3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, h: getattr(flow.condition(h), direction)(x), (x, context))


def test_single_precision_comes_back_and_far_values_stay_where_they_are():
    flow = stirred(SplineAutoregressive(6)).float()
    x = torch.cat([torch.randn(100, 6), torch.full((1, 6), 1e3), torch.full((1, 6), -1e3)])
    y, logdet = flow.forward_and_logdet(x)
    assert y[-2:].equal(x[-2:])
    assert logdet[-2:].equal(torch.zeros(2))
    torch.testing.assert_close(flow.inverse_and_logdet(y)[0], x, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": [0, 1, 1]}, "order"),
        ({"bins": 1}, "bins=1"),
        ({"bound": 0}, "bound=0"),
        ({"hidden": [0]}, "hidden"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SplineAutoregressive(3, **options)
