# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows stand wherever stock Pyro takes a transform: distributions, guides, models, handlers, modules."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import ConditionalTransformedDistribution, TransformedDistribution
from pyro.distributions.conditional import ConditionalComposeTransformModule
from pyro.distributions.torch_transform import ComposeTransformModule
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_dgm.transforms import Compose, Invert
from tests.transforms.toys import Bend, Turn, normal

close = torch.testing.assert_close
DATA = torch.tensor([[1.0, -2.0], [0.5, 0.3], [2.0, 1.0]])


def flow_of(context_dim=None):
    parts = [Bend(2, context_dim=context_dim), Turn(2), Bend(2, context_dim=context_dim)]
    return Compose([Invert(part) for part in parts[:1]] + parts[1:])


class Guided(nn.Module):
    """z ~ N(0, I), x ~ N(z, I), whose posterior is N(x / 2, I / 2); and a guide with a flow, learned or amortised."""

    def __init__(self, *, amortised):
        super().__init__()
        self.flow = flow_of(context_dim=2 if amortised else None)
        self.amortised = amortised

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("flow", self.flow)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        with pyro.plate("data", len(x), dim=-1):
            if self.amortised:
                pyro.sample("z", ConditionalTransformedDistribution(base, [self.flow]).condition(x))
            else:
                pyro.sample("z", TransformedDistribution(base, [self.flow]))


ELBOS = {
    "Trace_ELBO": lambda: Trace_ELBO(num_particles=2),
    "Trace_ELBO (vectorised)": lambda: Trace_ELBO(num_particles=4, vectorize_particles=True),
    "TraceGraph_ELBO": lambda: TraceGraph_ELBO(num_particles=2),
    "TraceMeanField_ELBO": lambda: TraceMeanField_ELBO(num_particles=4, vectorize_particles=True),
}


@pytest.mark.parametrize("amortised", [False, True], ids=["learned", "amortised"])
@pytest.mark.parametrize("name", ELBOS)
def test_a_guide_with_a_flow_learns(name, amortised):
    pair = Guided(amortised=amortised)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.03}), ELBOS[name]())
    losses = torch.tensor([svi.step(DATA) for _ in range(60)])
    evidence = dist.Normal(0.0, 2**0.5).log_prob(DATA).sum()
    assert losses[-20:].mean() < losses[:10].mean()
    assert losses[-20:].mean() > -evidence - 0.5
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in pair.parameters())
    assert set(pyro.get_param_store()) == {f"flow$$${name}" for name, _ in pair.flow.named_parameters()}


def test_an_older_trace_is_scored_by_the_flow_of_now():
    pair = Guided(amortised=False)
    trace = poutine.trace(pair.guide).get_trace(DATA)
    trace.compute_log_prob()
    with torch.no_grad():
        next(pair.flow.parameters()).add_(0.5)
    again = poutine.trace(poutine.replay(pair.guide, trace)).get_trace(DATA)
    z, old = (trace.nodes["z"][key] for key in ("value", "log_prob"))
    assert again.nodes["z"]["value"] is z
    again.compute_log_prob()
    noise, logdet = pair.flow.inverse_and_logdet(z)
    close(again.nodes["z"]["log_prob"], normal(2).log_prob(noise) + logdet)
    assert not torch.allclose(again.nodes["z"]["log_prob"], old)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_from_a_guide_and_from_a_prior(parallel):
    pair = Guided(amortised=True)
    drawn = Predictive(pair.model, guide=pair.guide, num_samples=7, parallel=parallel, return_sites=("z",))(DATA)
    assert drawn["z"].shape == (7, 3, 2)
    flow = flow_of()

    def model():
        with pyro.plate("data", 3, dim=-1):
            return pyro.sample("z", TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [flow]))

    assert Predictive(model, num_samples=7, parallel=parallel)()["z"].shape == (7, 3, 2)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_a_flow_in_the_model_is_fitted_to_data(elbo):
    """An observed site needs the inverse, which stock planar, radial and Sylvester flows do not have."""
    flow = flow_of()

    def model(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x), dim=-1):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("x", TransformedDistribution(base, [flow]), obs=x)

    x = 3 + 2 * torch.randn(50, 2)
    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.05}), elbo())
    losses = [svi.step(x) for _ in range(60)]
    assert losses[-1] < losses[0]
    inverse, logdet = flow.inverse_and_logdet(x)
    assert svi.evaluate_loss(x) == pytest.approx(-(normal(2).log_prob(inverse) + logdet).sum().item(), rel=1e-4)


def test_stock_containers_take_our_flows():
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    flows = [Bend(2), Invert(Bend(2)), Turn(2)]
    ours, stock = Compose(flows), ComposeTransformModule(flows, cache_size=1)
    assert len(list(stock.parameters())) == 5
    d, same = TransformedDistribution(normal(2), ours), TransformedDistribution(normal(2), [stock])
    close(d.log_prob(x), same.log_prob(x), rtol=1e-4, atol=1e-4)
    close(same.log_prob(y := same.rsample((5,))), d.log_prob(y.clone()), rtol=1e-4, atol=1e-4)
    flows = [Bend(2, context_dim=3), Bend(2, context_dim=3)]
    stock = ConditionalTransformedDistribution(normal(2), [ConditionalComposeTransformModule(flows, cache_size=1)])
    ours = ConditionalTransformedDistribution(normal(2), [Compose(flows)])
    close(stock.condition(context).log_prob(x), ours.condition(context).log_prob(x), rtol=1e-4, atol=1e-4)
    inverted = ConditionalTransformedDistribution(normal(2), [Compose(flows).inv]).condition(context)
    close(inverted.log_prob(y := inverted.rsample()), inverted.log_prob(y.clone()), rtol=1e-4, atol=1e-4)


def test_stock_compositions_score_in_one_pass():
    flows = [Bend(2), Bend(2)]
    d = TransformedDistribution(normal(2), [ComposeTransformModule(flows)])
    d.log_prob(d.rsample((5,)))
    assert [dict(flow.passes) for flow in flows] == [{"bind": 1, "forward": 1}] * 2
    d.log_prob(torch.randn(5, 2))
    assert [dict(flow.passes) for flow in flows] == [{"bind": 2, "forward": 1, "inverse": 1}] * 2


def test_amortised_and_stock_flows_mix():
    """A transform that is not of this package needs no context, and is left alone."""
    stock = dist.transforms.AffineTransform(1.0, torch.tensor([2.0, 0.5]), event_dim=1)
    d = ConditionalTransformedDistribution(normal(2), [Bend(2, context_dim=3), stock]).condition(torch.randn(5, 3))
    y = d.rsample()
    close(d.log_prob(y), d.log_prob(y.clone()))


def test_a_flow_is_an_attribute_of_a_pyro_module():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.flow = flow_of()

        def forward(self):
            return pyro.sample("z", TransformedDistribution(normal(2), [self.flow]))

    model = Model()
    trace = poutine.trace(model).get_trace()
    assert set(pyro.get_param_store()) == {f"flow$$${name}" for name, _ in model.flow.named_parameters()}
    assert trace.nodes["z"]["value"].requires_grad


def test_stock_handlers_scale_and_mask_a_flow():
    pair = Guided(amortised=True)
    mask = torch.tensor([True, False, True])
    trace = poutine.trace(pair.guide).get_trace(DATA)
    z = trace.nodes["z"]
    trace.compute_log_prob()
    for handler, factor in [(poutine.scale(scale=3.0), 3), (poutine.mask(mask=mask), mask)]:
        again = poutine.trace(handler(poutine.replay(pair.guide, trace))).get_trace(DATA)
        again.compute_log_prob()
        close(again.nodes["z"]["log_prob"], z["log_prob"] * factor, rtol=1e-4, atol=1e-4)
