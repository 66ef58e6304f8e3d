# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Planar flows are invertible whatever their parameters, and finite in the corners."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.transforms.planar import Planar
from pyro_dgm.transforms.solve import ConvergenceError
from tests.transforms.planar_flows import EVERY, set_to
from tests.transforms.random_flows import randomise

# Invertible by construction.


SIZES = st.floats(-5, 5)


@given(w=SIZES, u=SIZES, b=SIZES, x=SIZES, name=st.sampled_from(list(EVERY)))
def test_it_increases_whatever_the_parameters(w, u, b, x, name):
    flow, h = Planar(1, activation=EVERY[name]).double(), EVERY[name].value
    set_to(flow, w=[[w]], u=[[u]], b=[b])
    x = torch.tensor([[x], [x + 1e-2]], dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    assert logdet.isfinite().all()
    assert y[1] >= y[0] - 1e-12 * (1 + y.abs().max())
    # The equation that the inverse solves; x itself comes back where it is steep enough.
    z, back = ((each * flow.values.w).squeeze(-1) + flow.values.b for each in (x, flow.inverse_and_logdet(y)[0]))
    c = flow.bind(None)[3]
    torch.testing.assert_close(back + c * h(back), z + c * h(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("wu", [-25.0, 25.0, -400.0, 400.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_inverted_even_where_it_is_flat(name, wu, dtype):
    flow = set_to(Planar(1, activation=EVERY[name]).to(dtype), w=[[20.0]], u=[[wu / 20]], b=[0.3])
    x = torch.linspace(-2, 2, 41, dtype=dtype)[:, None]
    y, logdet = flow.forward_and_logdet(x)
    again, back = flow.inverse_and_logdet(y)
    assert all(tensor.isfinite().all() for tensor in (y, logdet, again, back))
    rounding = 100 * torch.finfo(dtype).eps * (1 + again.abs()) * (1 + logdet.exp()[:, None])
    assert ((flow(again) - y).abs() <= rounding + rounding * y.abs()).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_constraint_leaves_u_alone_where_it_is_small(name):
    flow = set_to(Planar(3, activation=EVERY[name]).double(), w=[[1e-3, 0, 0]], u=[[1e-3, 2, 3]], b=[0.0])
    _, u, _, c, (least, steepest) = flow.bind(None)
    torch.testing.assert_close(u, flow.values.u.data, rtol=0, atol=1e-8)
    torch.testing.assert_close(c.item(), 1e-6, rtol=1e-5, atol=0)
    torch.testing.assert_close(least, 1 + c * EVERY[name].least)
    torch.testing.assert_close(steepest, 1 + c * EVERY[name].steepest)


def test_tanh_moves_u_only_if_it_points_against_w():
    w, u = torch.randn(2, 200, 4)
    flow = set_to(Planar(4, depth=200), w=w, u=u)
    _, moved, _, c, (_, steepest) = flow.bind(None)
    wu = (w * u).sum(-1)
    assert torch.equal(moved[wu >= 0], u[wu >= 0])
    torch.testing.assert_close(steepest[wu < 0], wu[wu < 0].exp())
    torch.testing.assert_close((w * moved).sum(-1), c, rtol=1e-4, atol=1e-5)


# Corners.


def test_logdet_is_exact_where_tanh_is_steepest_and_u_points_against_w():
    flow = set_to(Planar(2), w=[[5.0, 0.0]], u=[[-5.0, 1.0]], b=[0.0])
    assert flow.forward_and_logdet(torch.zeros(1, 2))[1].item() == -25.0
    assert flow.inverse_and_logdet(torch.zeros(1, 2))[1].item() == 25.0


def test_wu_below_what_the_dtype_can_hold_is_finite():
    flow = set_to(Planar(2, activation="tanh"), w=[[50.0, 0.0]], u=[[-50.0, 1.0]], b=[0.0])
    y, logdet = flow.forward_and_logdet(torch.zeros(1, 2))
    assert -88 < logdet.item() < -87
    logdet.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("corner", ["w", "u", "both"])
@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
def test_w_or_u_of_zero(name, corner, method):
    flow = randomise(Planar(3, depth=2, activation=EVERY[name]))
    set_to(flow, **{key: torch.zeros(2, 3) for key in ("w", "u") if corner in (key, "both")})
    x = torch.randn(4, 3, requires_grad=True)
    y, logdet = getattr(flow, method)(x)
    torch.testing.assert_close(logdet, torch.zeros(4))
    if corner != "w":
        torch.testing.assert_close(y, x)
    (y.square().sum() + logdet.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *flow.parameters()))


@pytest.mark.parametrize("size", [1e-18, 1e-12, 1e-6, 1e-4, 1e-2])
def test_gradients_are_precise_near_w_of_zero(size):
    direction, u = torch.randn(2, 50, 4)
    u = torch.where((direction * u).sum(-1, keepdim=True) > 0, -u, u)  # the side on which u is moved
    flow = set_to(Planar(4, depth=50), w=size * direction, u=u)
    precise = set_to(Planar(4, depth=50).double(), w=flow.values.w.data, u=u)
    for each in (flow, precise):
        each.bind(None)[1].sum().backward()
    torch.testing.assert_close(flow.values.w.grad, precise.values.w.grad.float(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(flow.values.u.grad, precise.values.u.grad.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_away(name, dtype):
    flow = randomise(Planar(3, depth=2, activation=EVERY[name]).to(dtype), 0.5)
    x = (1e3 * torch.randn(20, 3, dtype=dtype)).requires_grad_()
    y, logdet = flow.forward_and_logdet(x)
    again, back = flow.inverse_and_logdet(y)
    (logdet.sum() + back.sum() + again.sum()).backward()
    assert all(t.isfinite().all() for t in (y, logdet, back, x.grad, *(p.grad for p in flow.parameters())))
    eps = torch.finfo(dtype).eps
    assert ((again - x).abs() <= 1e6 * eps).all()


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e-20])
def test_gradients_are_finite_where_the_square_of_w_underflows(size):
    flow = set_to(Planar(4, depth=50), w=size * torch.randn(50, 4), u=torch.randn(50, 4))
    y, logdet = flow.forward_and_logdet(torch.randn(3, 4))
    (y.sum() + logdet.sum()).backward()
    assert all(parameter.grad.abs().max() < 1e3 for parameter in flow.parameters())


def test_a_sample_that_is_not_a_number():
    x = torch.tensor([[torch.nan, 0.0], [1.0, 2.0]])
    assert Planar(2).inverse_and_logdet(x)[0].isfinite().tolist() == [[False, False], [True, True]]
    with pytest.raises(ConvergenceError, match="not finite, 1 of 2"):
        Planar(2, activation="sine").inverse_and_logdet(x)
