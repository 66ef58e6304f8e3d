# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a flow remembers of its last pair is never stale, never kept too long, and saves the second pass."""

import gc
import math
import weakref
from functools import partial

import pytest
import torch
from pyro.distributions import ConditionalTransformedDistribution, TransformedDistribution
from torch import nn
from torch.func import functional_call

from pyro_dgm.train.moving_average import ExponentialMovingAverage
from pyro_dgm.transforms import Compose, Invert
from tests.transforms.toys import Bend, Turn, normal

close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)

LEARNED = {
    "flow": lambda: Bend(2),
    "composed": lambda: Compose([Bend(2), Turn(2), Bend(2)]),
    "inverted": lambda: Invert(Bend(2)),
    "composed of inverted": lambda: Compose([Invert(Bend(2)), Turn(2)]),
}


@pytest.fixture(params=LEARNED)
def flow(request):
    return LEARNED[request.param]()


def optimised(make):
    def change(flow):
        optimiser = make(flow.parameters())
        for parameter in flow.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimiser.step()

    return change


def averaged(flow):
    average = ExponentialMovingAverage(flow, 0.5)
    torch._foreach_add_(average.averages, 0.5)  # as if the parameters had been there
    average.apply()


def added(flow):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5)


def replaced(flow):
    for module in flow.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach() + 1))


def shifted(flow):
    return {name: value + 1 for name, value in flow.state_dict().items()}


CHANGES = {
    "Adam": optimised(lambda p: torch.optim.Adam(p, 0.1, foreach=False)),
    "Adam (foreach)": optimised(lambda p: torch.optim.Adam(p, 0.1, foreach=True)),
    "Adam (fused)": optimised(lambda p: torch.optim.Adam(p, 0.1, fused=True)),
    "SGD (foreach)": optimised(lambda p: torch.optim.SGD(p, 0.1, foreach=True)),
    "SGD (fused)": optimised(lambda p: torch.optim.SGD(p, 0.1, fused=True)),
    "added in place": added,
    "load_state_dict": lambda flow: flow.load_state_dict(shifted(flow)),
    "load_state_dict (assign)": lambda flow: flow.load_state_dict(shifted(flow), assign=True),
    "moving average": averaged,
    "parameters replaced": replaced,
    "vector_to_parameters": lambda flow: nn.utils.vector_to_parameters(
        1 + nn.utils.parameters_to_vector(flow.parameters()).detach(), flow.parameters()
    ),
}


def fresh(flow, x, y):
    """The answers of a copy that remembers nothing."""
    return flow.forward_and_logdet(x) + flow.inverse_and_logdet(y)[:1]


@pytest.mark.parametrize("name", CHANGES)
def test_changed_parameters_change_the_answer(flow, name):
    x = torch.randn(5, 2)
    y = flow(x)
    flow.inv(y)
    CHANGES[name](flow)
    now, expected = flow(x), fresh(flow, x, y)
    assert not torch.equal(now, y)
    close(now, expected[0])
    close(flow.inv(y), expected[2])
    close(flow.log_abs_det_jacobian(x, now), expected[1])


@pytest.mark.parametrize("name", CHANGES)
def test_data_are_scored_anew_after_a_change(flow, name):
    d, data = TransformedDistribution(normal(2), flow), torch.randn(5, 2)
    sample = d.rsample((5,))
    before = d.log_prob(data).detach()
    d.log_prob(sample).mean()
    flow.inv(data)  # a pair that nobody used up
    CHANGES[name](flow)
    for value in (data, sample):
        x, logdet = flow.inverse_and_logdet(value)
        close(d.log_prob(value), normal(2).log_prob(x) + logdet)
    assert not torch.equal(d.log_prob(data), before)


def test_an_average_that_is_put_in_place_for_a_while(flow):
    average, x = ExponentialMovingAverage(flow, 0.5), torch.randn(5, 2)
    added(flow)
    y = flow(x)
    with average.applied():
        assert not torch.equal(flow(x), y)
        close(flow(x), flow.forward_and_logdet(x)[0])
    close(flow(x), y)


@pytest.mark.parametrize("dim", [2, 100_000])
def test_functional_calls_do_not_see_one_another(dim):
    """The tensors of one call are gone at the next, whose tensors then lie at the same place."""
    flow, x = Bend(dim), torch.randn(dim)
    kept = None
    with torch.no_grad():
        for step in range(20):
            given = {"values.a": torch.full((dim,), step / 20), "values.b": torch.full((dim,), step / 20)}
            kept = functional_call(flow, given, (x,))
            del given
            close(kept, torch.sinh(math.exp(step / 20) * torch.asinh(x) + step / 20))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_tensors_modified_in_place_are_computed_anew(flow, mode):
    with mode():
        x = torch.randn(5, 2)
        y = flow(x)
        y += 1
        close(flow.inv(y), flow.inverse_and_logdet(y)[0])
        y = flow(x)
        flow.log_abs_det_jacobian(x, y).add_(1)
        close(flow.log_abs_det_jacobian(x, y), flow.forward_and_logdet(x)[1])
        x += 1
        close(flow(x), flow.forward_and_logdet(x)[0])


def test_gradients_are_recorded_where_they_are_wanted(flow):
    d = TransformedDistribution(normal(2), flow)
    y = d.sample((5,))
    d.log_prob(y).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in flow.parameters())


def test_what_was_frozen_when_sampled_gets_its_gradient_when_scored(flow):
    flow.requires_grad_(False)
    x = torch.randn(5, 2)
    y = flow(x)
    flow.requires_grad_(True)
    assert flow.log_abs_det_jacobian(x, y).requires_grad
    assert flow.inv(y).requires_grad
    assert flow(x).requires_grad


def test_an_input_that_begins_to_require_gradients(flow):
    flow.requires_grad_(False)
    x = torch.randn(5, 2)
    flow.log_abs_det_jacobian(x, flow(x))
    x.requires_grad_(True)
    y = flow(x)
    assert y.requires_grad
    assert flow.log_abs_det_jacobian(x, y).requires_grad


def test_the_same_data_are_scored_in_every_step(flow):
    """Stock flows raise here that a graph is used for the second time."""
    d, data = TransformedDistribution(normal(2), flow), torch.randn(5, 2)
    losses = []
    optimiser = torch.optim.SGD(flow.parameters(), 0.01)
    for _ in range(20):
        optimiser.zero_grad()
        losses.append(-d.log_prob(data).mean())
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]


class Moody(Turn):
    """Maps differently in training, as batch norm does."""

    def _forward_and_logdet(self, x, parameters):
        return super()._forward_and_logdet(x if self.training else x + 1, parameters)


@pytest.mark.parametrize("within", [False, True])
def test_train_and_eval_mode_do_not_mix(within):
    part = Moody(2)
    flow = Compose([part, Turn(2)]) if within else part
    x = torch.randn(5, 2)
    y = flow(x)
    part.eval()
    assert not torch.equal(flow(x), y)
    flow.train()
    assert torch.equal(flow(x), y)
    conditioned = (amortised := Moody(2, context_dim=3)).condition(torch.randn(5, 3))
    y = conditioned(x)
    amortised.eval()
    assert not torch.equal(conditioned(x), y)


# Leaks: nothing waits for the collector of cycles.


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


USES = {
    "encode": lambda d, flow: flow.inv(torch.randn(5, 2)),
    "sample": lambda d, flow: d.rsample((5,)),
    "sample and score": lambda d, flow: d.log_prob(d.rsample((5,))),
    "sample without gradient": lambda d, flow: d.sample((5,)),
    "score": lambda d, flow: d.log_prob(torch.randn(5, 2)),
    "train": lambda d, flow: d.log_prob(torch.randn(5, 2)).sum().backward(),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", LEARNED)
def test_no_activation_outlives_its_use(name, use):
    flow = LEARNED[name]()
    parts = [part for part in flow.modules() if isinstance(part, Bend)]
    USES[use](TransformedDistribution(normal(2), flow), flow)
    assert sum(len(part.watched) for part in parts) > 0
    assert [part.alive() for part in parts] == [0] * len(parts)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USES)
def test_a_conditioned_transform_dies_with_its_last_user(use):
    flow = Compose([Bend(2, context_dim=3), Turn(2)])
    d = ConditionalTransformedDistribution(normal(2), [flow]).condition(torch.randn(5, 3))
    (conditioned,) = d.transforms
    USES[use](d, conditioned)
    gone = [weakref.ref(conditioned), weakref.ref(conditioned.parameters[0][0])]
    del conditioned, d
    assert [seen() for seen in gone] == [None, None]
    assert flow.flows[0].alive() == 0


@pytest.mark.usefixtures("no_collector")
def test_data_that_stay_do_not_keep_activations():
    flow, data = Bend(2), torch.randn(5, 2)
    flow.inv(data)
    assert flow.alive() == 0
    TransformedDistribution(normal(2), flow).log_prob(data)
    assert flow.alive() == 0


@pytest.mark.usefixtures("no_collector")
def test_a_flow_dies_with_its_last_user():
    for make in LEARNED.values():
        flow = make()
        y = flow(torch.randn(5, 2))
        flow.inv(y)
        gone = weakref.ref(flow)
        del flow, y
        assert gone() is None
