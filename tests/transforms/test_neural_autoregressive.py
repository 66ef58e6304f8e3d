# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Means of sigmoids increase, are exact where all are saturated, and are inverted to rounding everywhere."""

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.neural_autoregressive import NeuralAutoregressive
from pyro_dgm.transforms.sigmoidal import Sigmoidal
from pyro_dgm.transforms.solve import ConvergenceError

EPS = torch.finfo(torch.float64).eps
numbers = st.floats(-1e3, 1e3)
raws = st.integers(1, 5).flatmap(lambda units: st.lists(st.floats(-10, 10), min_size=3 * units, max_size=3 * units))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def wild(dim, scale=0.5, **options):
    """A flow in double precision with parameters of order 1."""
    flow = NeuralAutoregressive(dim, hidden=(16, 16), activation=nn.Tanh, **options).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return flow


# One number.


def test_it_is_the_logit_of_the_mean():
    units, map = 4, Sigmoidal(4)
    x, raw = torch.randn(50, dtype=torch.float64, requires_grad=True), torch.randn(50, map.size, dtype=torch.float64)
    slope, bias, weight = raw.split(units, -1)
    slope = 1e-3 + 0.999 * torch.log1p(torch.e**slope * (torch.e - 1))
    bias, weight = bias + torch.linspace(-1, 1, units).double(), weight.softmax(-1)
    expected = torch.logit((weight * torch.sigmoid(slope * x.unsqueeze(-1) + bias)).sum(-1))
    y, logdet = map.forward_and_logdet(x, raw)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(logdet, torch.autograd.grad(expected.sum(), x)[0].log())


@given(raws, st.lists(numbers, min_size=2, max_size=20))
def test_it_increases(raw, x):
    x, raw = tensor(sorted(x)), tensor(raw)
    y, logdet = Sigmoidal(len(raw) // 3).forward_and_logdet(x, raw.expand(len(x), -1))
    assert (y.diff() >= -8 * EPS * (1 + y[1:].abs())).all()
    assert y.isfinite().all()
    assert logdet.isfinite().all()


@given(raws, st.lists(numbers, min_size=1, max_size=20))
def test_every_number_is_reached(raw, y):
    map, y = Sigmoidal(len(raw) // 3), tensor([*y, 1e3, -1e3, 0.0])
    raw = tensor(raw).expand(len(y), -1)
    x, logdet = map.inverse_and_logdet(y, raw)
    again, logdet_again = map.forward_and_logdet(x, raw)
    assert ((again - y).abs() <= 1e-10).all()
    assert ((again - y).abs() <= 100 * EPS * (1 + y.abs()) + 8 * EPS * x.abs() * logdet_again.exp()).all()
    assert torch.equal(logdet, -logdet_again)


def test_far_out_it_has_the_slope_of_the_flattest_unit():
    map = Sigmoidal(3)
    for dtype, precision in ((torch.float32, 1e-2), (torch.float64, 1e-9)):  # log-slopes to eps y
        raw = torch.randn(5, map.size, dtype=dtype)
        slope = 1e-3 + 0.999 * torch.nn.functional.softplus(raw[:, :3] + 0.541324854612918)
        for x in (-1e5, -1e3, 1e3, 1e5):
            x = torch.full((5,), x, dtype=dtype, requires_grad=True)
            y, logdet = map.forward_and_logdet(x, raw)
            (derivative,) = torch.autograd.grad(y.sum(), x)
            torch.testing.assert_close(logdet.exp(), derivative, rtol=precision, atol=0)
            if abs(x[0]) > 1e4:
                torch.testing.assert_close(derivative, slope.amin(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_at_once_to_rounding(dtype):
    map, size = Sigmoidal(), 5000
    for scale in (0.1, 1.0, 3.0):
        y = torch.randn(size, dtype=dtype) * 10 ** (3 * torch.rand(size, dtype=dtype))
        raw = scale * torch.randn(size, map.size, dtype=dtype)
        again, _ = map.forward_and_logdet(map.inverse_and_logdet(y, raw)[0], raw)
        assert ((again - y).abs() / (1 + y.abs())).max() < 100 * torch.finfo(dtype).eps


def test_raw_zeros_are_nearly_the_identity_and_units_differ():
    x = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    for units, bound in ((1, 1e-12), (2, 0.44), (8, 0.21), (32, 0.18)):
        map = Sigmoidal(units)
        raw = torch.zeros(len(x), map.size, dtype=torch.float64, requires_grad=True)
        y, logdet = map.forward_and_logdet(x, raw)
        assert (y - x).abs().max() <= bound
        ((y - 1).square() + logdet).mean().backward()
        gradients = raw.grad.sum(0).reshape(3, units)
        assert all(len(row.unique()) == units for row in gradients)


def test_gradients_of_both_directions():
    map = Sigmoidal(3)
    x = tensor([-30.0, -1.0, 0.3, 40.0]).requires_grad_()
    raw = torch.randn(4, map.size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(map.forward_and_logdet, (x, raw))
    assert torch.autograd.gradcheck(map.inverse_and_logdet, (x, raw))


def test_what_is_not_finite_has_no_inverse():
    with pytest.raises(ConvergenceError, match="not finite"):
        Sigmoidal().inverse_and_logdet(tensor([0.0, float("nan")]), torch.zeros(2, 24, dtype=torch.float64))


# The flow.


@pytest.mark.parametrize("context", [None, (4,)])
def test_inverse_and_log_determinant(context):
    flow = wild(4, context_dim=context and 3, order=[2, 0, 3, 1])
    transform = flow if context is None else flow.condition(torch.randn(*context, 3, dtype=torch.float64))
    x = 3 * torch.randn(2, 4, 4, dtype=torch.float64)
    y, logdet = transform.forward_and_logdet(x)
    back, logdet_back = transform.inverse_and_logdet(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(logdet_back, -logdet)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform.forward_and_logdet(x)[0].sum((0, 1)), x)
    jacobian = jacobian.movedim(0, -2)  # rows do not know of one another
    torch.testing.assert_close(logdet, torch.linalg.slogdet(jacobian).logabsdet)
    after = jacobian[..., [2, 0, 3, 1], :][..., [2, 0, 3, 1]]  # in the order of the flow
    assert (after.triu(1) == 0).all()


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_any_point_can_be_scored(scale):
    flow = wild(3, scale)
    y = torch.cat([torch.randn(100, 3), 1e3 * torch.randn(100, 3).sign(), torch.zeros(1, 3)]).double()
    x, logdet = flow.inverse_and_logdet(y)
    again, logdet_again = flow.forward_and_logdet(x)
    assert (again - y).abs().max() <= 1e-10
    torch.testing.assert_close(logdet, -logdet_again)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients_of_the_flow(direction):
    flow = wild(3, context_dim=2, units=2)
    x, h = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    assert torch.autograd.gradcheck(lambda x, h: getattr(flow.condition(h), direction)(x), (x, h), atol=1e-6)


def test_the_inverse_teaches_the_parameters_what_the_forward_map_does():
    flow, y = wild(3, units=3), torch.randn(5, 3, dtype=torch.float64)
    x, logdet = flow.inverse_and_logdet(y)
    (x.square().sum() + logdet.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())
    assert all(parameter.grad.any() for parameter in flow.parameters())


def test_a_log_determinant_belongs_to_its_pair():
    flow = wild(3)
    x1, x2 = torch.randn(2, 5, 3, dtype=torch.float64)
    y1 = flow(x1)
    expected = flow.log_abs_det_jacobian(x1, y1)
    flow(x2)
    torch.testing.assert_close(flow.log_abs_det_jacobian(x1, y1), expected)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(0.5)
    assert not torch.allclose(flow.log_abs_det_jacobian(x1, y1), expected)


def test_the_density_of_one_dimension_integrates_to_one():
    flow = wild(1, 0.7)
    grid = 10 * torch.linspace(-7, 7, 40001, dtype=torch.float64).unsqueeze(1).sinh()  # to 5000 on both sides
    for density in (flow, Invert(flow)):
        normal = dist.TransformedDistribution(dist.Normal(torch.zeros(1).double(), 1.0).to_event(1), [density])
        area = torch.trapezoid(normal.log_prob(grid).exp(), grid.squeeze(1))
        assert area.item() == pytest.approx(1.0, abs=1e-5)


def test_units_must_be_positive():
    with pytest.raises(ValueError, match="Sigmoidal got units=0"):
        NeuralAutoregressive(3, units=0)
