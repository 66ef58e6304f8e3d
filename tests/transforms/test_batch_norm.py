# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation has the density that it says, when it trains and when it is evaluated."""

import copy

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.batch_norm import BatchNorm
from pyro_dgm.transforms.compose import Compose

MEANS, SCALES = torch.tensor([3.0, -200.0, 0.01]).double(), torch.tensor([5.0, 1e-3, 40.0]).double()


def data(rows=200):
    return MEANS + SCALES * torch.randn(rows, 3, dtype=torch.float64)


def reference(flow):
    """The layer of torch, which normalises towards the noise as the flow's inverse does."""
    layer = nn.BatchNorm1d(flow.dim, eps=flow.eps, momentum=None).double()
    with torch.no_grad():
        layer.weight.copy_(flow.gamma.exp())
        layer.bias.copy_(flow.beta)
    return layer


def with_parameters(**options):
    flow = BatchNorm(3, **options).double()
    with torch.no_grad():
        flow.gamma.normal_()
        flow.beta.normal_()
    return flow


def test_it_is_the_layer_of_torch():
    flow = with_parameters()
    layer = reference(flow)
    for _ in range(10):  # the first 1 / momentum batches are averaged equally, as with momentum=None
        x = data(20)
        torch.testing.assert_close(flow.inverse_and_logdet(x)[0], layer(x))
        torch.testing.assert_close(flow.running_mean, layer.running_mean)
        torch.testing.assert_close(flow.running_var, layer.running_var)
    layer.momentum = 0.1
    for _ in range(5):  # afterwards the average is exponential
        x = 3 * data(20)
        torch.testing.assert_close(flow.inverse_and_logdet(x)[0], layer(x))
        torch.testing.assert_close(flow.running_mean, layer.running_mean)
        torch.testing.assert_close(flow.running_var, layer.running_var)
    x = data(20)
    torch.testing.assert_close(flow.eval().inverse_and_logdet(x)[0], layer.eval()(x))


def test_the_running_averages_are_right_after_one_batch():
    flow, x = BatchNorm(3).double(), data(1000)
    flow.inverse_and_logdet(x)
    x, _ = flow.eval().inverse_and_logdet(x)
    torch.testing.assert_close(x[:, [0, 2]].std(0), torch.ones(2).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(x[:, 1].std(), (1e-6 / (1e-6 + 1e-5)) ** 0.5 * torch.ones(()).double(), rtol=0.1, atol=0)


def test_a_momentum_of_zero_averages_over_all_batches():
    flow, x = BatchNorm(3, momentum=0).double(), data(400)
    for batch in x.split(20):
        flow.inverse_and_logdet(batch)
    torch.testing.assert_close(flow.running_mean, x.mean(0))
    torch.testing.assert_close(flow.running_var, torch.stack([batch.var(0) for batch in x.split(20)]).mean(0))


def test_evaluation_mode_is_an_affine_bijection():
    flow = with_parameters()
    flow.inverse_and_logdet(data())
    flow.eval()
    y = data(7).reshape(7, 1, 3).requires_grad_()
    x, logdet = flow.inverse_and_logdet(y)
    back, logdet_back = flow.forward_and_logdet(x)
    torch.testing.assert_close(back, y)
    torch.testing.assert_close(logdet_back, -logdet)
    jacobian = torch.autograd.functional.jacobian(lambda y: flow.inverse_and_logdet(y)[0], y[0, 0])
    torch.testing.assert_close(logdet, torch.linalg.slogdet(jacobian).logabsdet.expand(7, 1))
    assert torch.equal(flow.batches, torch.tensor(1))


def test_training_mode_scores_by_the_batch_in_value_and_log_determinant():
    flow, y = with_parameters(), data(50)
    x, logdet = flow.inverse_and_logdet(y.reshape(5, 10, 3))
    mean, std = y.mean(0), (y.var(0, correction=0) + flow.eps).sqrt()
    torch.testing.assert_close(x.reshape(50, 3), (y - mean) / std * flow.gamma.exp() + flow.beta)
    torch.testing.assert_close(logdet, (flow.gamma - std.log()).sum().expand(5, 10))
    normal = dist.Normal(torch.zeros(3).double(), 1.0).to_event(1)
    log_prob = dist.TransformedDistribution(normal, [flow]).log_prob(y)
    torch.testing.assert_close(log_prob, normal.log_prob(x.reshape(50, 3)) + logdet[0, 0])


def test_training_mode_samples_by_the_running_averages_in_value_and_log_determinant():
    flow = with_parameters()
    flow.inverse_and_logdet(data())
    state, x = copy.deepcopy(flow.state_dict()), torch.randn(6, 3, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    assert all(torch.equal(value, state[name]) for name, value in flow.state_dict().items())
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.forward_and_logdet(x)[0], x[0])
    torch.testing.assert_close(logdet, torch.linalg.slogdet(jacobian).logabsdet.expand(6))
    normal = dist.TransformedDistribution(dist.Normal(torch.zeros(3).double(), 1.0).to_event(1), [flow])
    sample = normal.rsample((6,))
    log_prob = normal.log_prob(sample)  # of the pass that drew it, and not of a new batch
    assert torch.equal(flow.running_mean, state["running_mean"])
    noise = flow.eval().inverse_and_logdet(sample)[0]
    torch.testing.assert_close(log_prob, normal.base_dist.log_prob(noise) - logdet)


def test_the_density_of_one_dimension_integrates_to_one():
    flow = BatchNorm(1).double()
    flow.inverse_and_logdet(2 + 3 * torch.randn(100, 1, dtype=torch.float64))
    grid = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    x, logdet = flow.eval().inverse_and_logdet(grid.unsqueeze(1))
    density = (dist.Normal(0.0, 1.0).log_prob(x.squeeze(1)) + logdet).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0)
    x, logdet = flow.train().inverse_and_logdet(grid.unsqueeze(1))  # a batch of its own: m and v are two numbers
    slope = x.squeeze(1).diff() / grid.diff()
    torch.testing.assert_close(logdet[1:], slope.log())


def test_single_rows_use_the_running_averages():
    flow = with_parameters()
    flow.inverse_and_logdet(data())
    state = copy.deepcopy(flow.state_dict())
    for y in (data(1), data(1)[0], data(1)[:0]):
        x, logdet = flow.train().inverse_and_logdet(y)
        torch.testing.assert_close((x, logdet), flow.eval().inverse_and_logdet(y))
    assert all(torch.equal(value, state[name]) for name, value in flow.state_dict().items())


def test_gradients_go_through_the_moments():
    flow, y = with_parameters(), data(4)[:, [0, 2, 0]].clone().requires_grad_()
    assert torch.autograd.gradcheck(flow.inverse_and_logdet, (y,))
    y, logdet = flow.forward_and_logdet(torch.randn(4, 3, dtype=torch.float64))
    flow.inverse_and_logdet(data())  # which writes to the averages that the graph has read
    (y.sum() + logdet.sum()).backward()
    assert all((parameter.grad != 0).all() for parameter in flow.parameters())


def test_under_torch_func_nothing_is_stored():
    flow, y = with_parameters(), data(4)
    expected = copy.deepcopy(flow).inverse_and_logdet(y)[0]
    torch.testing.assert_close(torch.func.vjp(lambda y: flow.inverse_and_logdet(y)[0], y)[0], expected)
    assert flow.batches == 0


def test_it_trains_a_density():
    flow = Compose([BatchNorm(2), AffineCoupling(2), BatchNorm(2)]).double()
    distribution = dist.TransformedDistribution(dist.Normal(torch.zeros(2).double(), 1.0).to_event(1), [flow])
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.01)

    def batch(rows):
        a, b = torch.randn(2, rows, dtype=torch.float64)
        return torch.stack([a, a + 0.3 * b], -1) * 5 + 100

    for _ in range(300):
        optimiser.zero_grad()
        (-distribution.log_prob(batch(100)).mean()).backward()
        optimiser.step()
    flow.eval()
    exact = -(1 + torch.tensor(2 * torch.pi).log() + torch.tensor(25 * 0.3).log())
    score = distribution.log_prob(batch(4000)).mean().item()
    assert score == pytest.approx(exact.item(), abs=0.1)


@pytest.mark.parametrize("options", [{"momentum": -0.1}, {"momentum": 1.1}, {"eps": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"BatchNorm got momentum=.*, eps="):
        BatchNorm(3, **options)


def test_compiled_it_averages_likewise():
    flow, y = with_parameters(), data(20)
    other = copy.deepcopy(flow)
    torch.compiler.reset()
    compiled = torch.compile(flow.inverse_and_logdet, backend="eager", fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(y), other.inverse_and_logdet(y))
    torch.testing.assert_close(flow.state_dict(), other.state_dict())
