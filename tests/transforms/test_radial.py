# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Radial flows are the formula, invertible whatever their parameters, and finite at the centre and far from it."""

import math

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import softplus

from pyro_dgm.transforms.radial import Radial, _radius
from tests.transforms.planar_flows import set_to
from tests.transforms.random_flows import randomise


def test_it_is_the_formula_of_the_paper():
    flow = randomise(Radial(4).double())
    x = torch.randn(9, 4, dtype=torch.float64)
    center, alpha, gamma = (value[0] for value in flow.values(None))
    alpha, beta = softplus(alpha), softplus(gamma) - softplus(alpha)
    r = (x - center).norm(dim=-1)
    h, slope = 1 / (alpha + r), -1 / (alpha + r) ** 2
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(y, x + beta * h[:, None] * (x - center))
    torch.testing.assert_close(logdet.exp(), (1 + beta * h) ** 3 * (1 + beta * h + beta * slope * r))  # eq. 14


def test_it_is_the_stock_one_with_an_inverse():
    stock, flow = dist.transforms.Radial(5), randomise(Radial(5))
    with torch.no_grad():
        stock.x0.copy_(flow.values.center[0])
        stock.alpha_prime.copy_(flow.values.alpha)
        stock.beta_prime.copy_(flow.values.gamma)
    x = torch.randn(7, 5)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(y, stock(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logdet, stock.log_abs_det_jacobian(x, y).squeeze(-1), rtol=1e-5, atol=1e-5)


def test_zeros_are_the_identity():
    flow = Radial(3, depth=2, context_dim=2)
    nn.init.zeros_(flow.values.net.weight)
    nn.init.zeros_(flow.values.net.bias)
    x = torch.randn(5, 3)
    y, logdet = flow.condition(torch.randn(5, 2)).forward_and_logdet(x)
    assert torch.equal(y, x)
    torch.testing.assert_close(logdet, torch.zeros(5))


def test_depth_is_so_many_maps_in_a_row():
    deep = randomise(Radial(4, depth=5).double())
    x = y = torch.randn(6, 4, dtype=torch.float64)
    total = torch.zeros(6, dtype=torch.float64)
    for k in range(5):
        values = {key: getattr(deep.values, key)[k : k + 1] for key in ("center", "alpha", "gamma")}
        y, logdet = set_to(Radial(4).double(), **values).forward_and_logdet(y)
        total = total + logdet
    torch.testing.assert_close(deep.forward_and_logdet(x), (y, total))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_logdet_is_that_of_the_jacobian_in_both_directions(dim):
    flow = randomise(Radial(dim, depth=3).double(), 2.0)
    x = torch.randn(8, dim, dtype=torch.float64)
    for function, points in ((flow.forward_and_logdet, x), (flow.inverse_and_logdet, flow(x))):
        jacobians = [torch.autograd.functional.jacobian(lambda row, f=function: f(row)[0], row) for row in points]
        sign, logdet = torch.linalg.slogdet(torch.stack(jacobians))
        assert (sign > 0).all()
        torch.testing.assert_close(function(points)[1], logdet)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_round_trip(dtype, tolerance):
    flow = randomise(Radial(16, depth=8).to(dtype))
    x = 3 * torch.randn(50, 16, dtype=dtype)
    y, logdet = flow.forward_and_logdet(x)
    again, back = flow.inverse_and_logdet(y)
    torch.testing.assert_close(again, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(back, -logdet, rtol=tolerance, atol=tolerance)


def test_gradients_to_x_and_parameters_in_both_directions():
    flow = Radial(3, depth=2)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    values = tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (2,), (2,)))

    def bound(center, alpha, gamma):
        return center, softplus(alpha), softplus(gamma)

    assert torch.autograd.gradcheck(lambda x, *v: flow._forward_and_logdet(x, bound(*v)), (x, *values))
    assert torch.autograd.gradcheck(lambda x, *v: flow._inverse_and_logdet(x, bound(*v)), (x, *values))


@given(alpha=st.floats(-15, 5).map(math.exp), gamma=st.floats(-15, 5).map(math.exp), r=st.floats(-20, 14).map(math.exp))
def test_the_radius_is_found_to_rounding_error(alpha, gamma, r):
    alpha, gamma, r = (torch.tensor(number, dtype=torch.float64) for number in (alpha, gamma, r))
    image = r * (gamma + r) / (alpha + r)
    slope = (alpha * gamma + 2 * alpha * r + r**2) / (alpha + r) ** 2
    condition = image / (r * slope)  # by how much a rounding error of the image grows on the way back
    for dtype in (torch.float32, torch.float64):
        found = _radius(image.to(dtype), alpha.to(dtype), gamma.to(dtype))
        assert (found / r - 1).abs() <= 4 * torch.finfo(dtype).eps * (1 + condition)


@given(alpha=st.floats(-200, 200), gamma=st.floats(-200, 200), x=st.floats(-5, 5), center=st.floats(-5, 5))
def test_it_increases_whatever_the_parameters(alpha, gamma, x, center):
    flow = set_to(Radial(1).double(), center=[[center]], alpha=[alpha], gamma=[gamma])
    x = torch.tensor([[x], [x + 1e-2]], dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    assert y[1] >= y[0] - 1e-13 * (1 + y.abs().max())
    assert logdet.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("raw", [-200.0, -1.0, 0.0, 200.0])
@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
def test_at_the_centre(dtype, raw, method):
    flow = set_to(Radial(3).to(dtype), alpha=[raw], gamma=[-raw])
    x = flow.values.center.detach().clone().requires_grad_()
    y, logdet = getattr(flow, method)(x)
    _, alpha, gamma = flow.bind(None)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(logdet.abs(), (3 * (gamma / alpha).log()).abs())
    (y.sum() + logdet.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *flow.parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_far_away(dtype, tolerance):
    flow = randomise(Radial(64, depth=3).to(dtype))
    x = 1e3 * torch.randn(20, 64, dtype=dtype)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(flow.inverse_and_logdet(y)[0], x, rtol=tolerance, atol=1e3 * tolerance)
    precise = flow.double().forward_and_logdet(x.double())[1]
    torch.testing.assert_close(logdet.double(), precise, rtol=0, atol=1000 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(), (5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
def test_amortised_is_a_loop_of_learned(shape, method):
    flow = Radial(4, context_dim=6, depth=3).double()
    context, x = torch.randn(5, 6).double(), torch.randn(*shape, 4).double()
    y, logdet = getattr(flow.condition(context), method)(x)
    x = x.expand(*torch.broadcast_shapes(shape, (5,)), 4)
    assert y.shape == x.shape
    assert logdet.shape == x.shape[:-1]
    for row, (center, alpha, gamma) in enumerate(zip(*flow.values(context), strict=True)):
        learned = set_to(Radial(4, depth=3).double(), center=center, alpha=alpha, gamma=gamma)
        torch.testing.assert_close(getattr(learned, method)(x[..., row, :]), (y[..., row, :], logdet[..., row]))


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4)])
def test_any_leading_sizes(shape):
    flow = Radial(3, depth=2)
    for result in (flow.forward_and_logdet(torch.randn(*shape, 3)), flow.inverse_and_logdet(torch.randn(*shape, 3))):
        assert result[0].shape == (*shape, 3)
        assert result[1].shape == shape


def test_both_directions_run_on_the_meta_device():
    flow = Radial(3, depth=2).to("meta")
    assert flow.inverse_and_logdet(flow(torch.empty(4, 3, device="meta")))[1].shape == (4,)


def test_depth_must_be_positive():
    with pytest.raises(ValueError, match=r"Radial got depth=\(0,\)"):
        Radial(3, depth=0)
