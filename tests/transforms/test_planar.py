# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Planar flows of every activation are the formula, learned and amortised, with the right Jacobian and gradients."""

import pickle

import pytest
import torch
from torch import nn

from pyro_dgm.transforms.activation import ACTIVATIONS, Activation
from pyro_dgm.transforms.planar import BLOCK, Planar
from tests.transforms.planar_flows import EVERY, OWN, set_to
from tests.transforms.random_flows import randomise


def jacobian_logdet(function, x):
    rows = [torch.autograd.functional.jacobian(lambda row: function(row)[0], row) for row in x]
    sign, logdet = torch.linalg.slogdet(torch.stack(rows))
    assert (sign > 0).all()
    return logdet


# The formula.


@pytest.mark.parametrize("name", EVERY)
def test_it_is_the_formula(name):
    flow = randomise(Planar(4, activation=EVERY[name]).double())
    x = torch.randn(9, 4, dtype=torch.float64)
    w, u, b, c, _ = (part[0] if isinstance(part, torch.Tensor) else part for part in flow.bind(None))
    torch.testing.assert_close(c, w @ u)
    h = EVERY[name].value(x @ w + b)
    torch.testing.assert_close(flow(x), x + h[:, None] * u)


@pytest.mark.parametrize("name", EVERY)
def test_shares_are_those_of_the_slope_and_the_slope_is_the_derivative(name):
    activation = EVERY[name]
    z = torch.linspace(-9, 9, 500, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation.value(z).sum(), z)
    torch.testing.assert_close(activation.slope(z), slope)
    p, q = activation.shares(z)
    torch.testing.assert_close(p * activation.steepest + q * activation.least, slope)
    assert ((p >= 0) & (q >= 0)).all()
    assert ((slope >= activation.least - 1e-12) & (slope <= activation.steepest + 1e-12)).all()


@pytest.mark.parametrize("depth", [1, 3, BLOCK, 2 * BLOCK + 1])
@pytest.mark.parametrize("name", ["tanh", "sine"])
def test_depth_is_so_many_maps_in_a_row(name, depth):
    deep = randomise(Planar(5, depth=depth, activation=name).double(), 0.7)
    x = y = torch.randn(6, 5, dtype=torch.float64)
    total = torch.zeros(6, dtype=torch.float64)
    for k in range(depth):
        values = {key: getattr(deep.values, key)[k : k + 1] for key in ("w", "u", "b")}
        y, logdet = set_to(Planar(5, activation=name).double(), **values).forward_and_logdet(y)
        total = total + logdet
    torch.testing.assert_close(deep.forward_and_logdet(x), (y, total))


@pytest.mark.parametrize("name", EVERY)
def test_logdet_is_that_of_the_jacobian_in_both_directions(name):
    flow = randomise(Planar(4, depth=3, activation=EVERY[name]).double())
    x = torch.randn(8, 4, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(logdet, jacobian_logdet(flow.forward_and_logdet, x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        flow.inverse_and_logdet(y)[1], jacobian_logdet(flow.inverse_and_logdet, y), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_round_trip(name, dtype, tolerance):
    flow = randomise(Planar(16, depth=2, activation=EVERY[name]).to(dtype), 0.4)
    x = 3 * torch.randn(50, 16, dtype=dtype)
    y, logdet = flow.forward_and_logdet(x)
    again, back = flow.inverse_and_logdet(y)
    torch.testing.assert_close(again, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(back, -logdet, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_to_x_and_parameters_in_both_directions(name):
    flow = randomise(Planar(3, depth=2, activation=EVERY[name]).double(), 0.8)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    parameters = {f"flow.{name}": value.detach().clone() for name, value in flow.named_parameters()}

    def run(method):
        calls = _Calls(flow, method)
        return lambda x, *values: torch.func.functional_call(calls, dict(zip(parameters, values, strict=True)), x)

    values = tuple(value.requires_grad_() for value in parameters.values())
    assert torch.autograd.gradcheck(run("forward_and_logdet"), (x, *values))
    assert torch.autograd.gradcheck(run("inverse_and_logdet"), (x, *values))


class _Calls(nn.Module):
    def __init__(self, flow, method):
        super().__init__()
        self.flow, self.method = flow, method

    def forward(self, x):
        return getattr(self.flow, self.method)(x)


# Amortised.


@pytest.mark.parametrize("name", ["tanh", "sine"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
def test_amortised_is_a_loop_of_learned(name, shape, method):
    flow = Planar(4, context_dim=6, depth=3, activation=name).double()
    context, x = torch.randn(5, 6).double(), torch.randn(*shape, 4).double()
    y, logdet = getattr(flow.condition(context), method)(x)
    x = x.expand(*torch.broadcast_shapes(shape, (5,)), 4)
    assert y.shape == x.shape
    assert logdet.shape == x.shape[:-1]
    for row, raw in enumerate(flow.values(context)[0]):
        w, u, b = raw, *(part[row] for part in flow.values(context)[1:])
        learned = set_to(Planar(4, depth=3, activation=name).double(), w=w, u=u, b=b)
        torch.testing.assert_close(getattr(learned, method)(x[..., row, :]), (y[..., row, :], logdet[..., row]))


@pytest.mark.parametrize("batch", [(5, 1), (1, 3), (5, 3), ()])
def test_contexts_broadcast(batch):
    flow = Planar(4, context_dim=6, depth=2)
    context, x = torch.randn(*batch, 6), torch.randn(2, 5, 3, 4)
    y, logdet = flow.condition(context).forward_and_logdet(x)
    every = flow.condition(context.expand(5, 3, 6)).forward_and_logdet(x)
    torch.testing.assert_close((y, logdet), every)
    torch.testing.assert_close(flow.condition(context).inverse_and_logdet(y)[0], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4)])
def test_any_leading_sizes(shape):
    flow = Planar(3, depth=2)
    for result in (flow.forward_and_logdet(torch.randn(*shape, 3)), flow.inverse_and_logdet(torch.randn(*shape, 3))):
        assert result[0].shape == (*shape, 3)
        assert result[1].shape == shape


def test_a_context_network_of_zeros_is_the_identity_with_gradients():
    flow = Planar(3, context_dim=2, depth=4)
    nn.init.zeros_(flow.values.net.weight)
    nn.init.zeros_(flow.values.net.bias)
    x = torch.randn(5, 3)
    y, logdet = flow.condition(torch.randn(5, 2)).forward_and_logdet(x)
    torch.testing.assert_close(y, x)
    (y.sum() + logdet.sum()).backward()
    assert flow.values.net.weight.grad.isfinite().all()


# What is asked for.


def test_an_own_activation_pickles_with_the_flow():
    flow = Planar(3, activation=OWN["falling"])
    x = torch.randn(4, 3)
    torch.testing.assert_close(pickle.loads(pickle.dumps(flow))(x), flow(x))


def test_a_context_net_of_ones_own():
    flow = Planar(3, context_dim=2, context_net=lambda n, m: nn.Sequential(nn.Linear(n, 8), nn.Tanh(), nn.Linear(8, m)))
    assert flow.condition(torch.randn(5, 2))(torch.randn(5, 3)).shape == (5, 3)


def test_forward_runs_on_the_meta_device():
    for name in ACTIVATIONS:
        assert Planar(3, depth=2, activation=name).to("meta")(torch.empty(4, 3, device="meta")).shape == (4, 3)


@pytest.mark.parametrize("depth", [0, -1])
def test_depth_must_be_positive(depth):
    with pytest.raises(ValueError, match="Planar got depth="):
        Planar(3, depth=depth)


@pytest.mark.parametrize(("least", "steepest"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_bounds_must_be_in_order(least, steepest):
    with pytest.raises(ValueError, match="Activation got least="):
        Activation(torch.tanh, torch.cos, least=least, steepest=steepest)
