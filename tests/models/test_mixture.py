# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Every mixture as a Pyro program: exact under any bound, at home in stock Pyro."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO

from pyro_dgm.evaluate import log_likelihood
from pyro_dgm.infer import ELBO, EM, IWAE, GradientStep, Objective, em
from pyro_dgm.models import BernoulliMixture
from tests.cases import MIXTURES

EACH = pytest.mark.parametrize("name", MIXTURES)
# Stock Trace_ELBO draws z, and warns that it could be summed over.
DRAWN = pytest.mark.filterwarnings(r"ignore:z\sIf you want to enumerate sites:UserWarning")


def make(name, *, device="cpu", dtype=torch.float64):
    """A mixture with random parameters, and data for it."""
    torch.manual_seed(3)
    model = MIXTURES[name]()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = model.model(size=40).detach()
    return model.to(device, dtype), (x if isinstance(model, BernoulliMixture) else x.to(dtype)).to(device)


def table(model, x):
    """Log p(x, z) by the program itself, one component after the other: (B, K)."""
    found = []
    for k in range(model.components):
        z = torch.full((len(x),), k, device=x.device)
        found.append(poutine.trace(poutine.condition(model.model, {"z": z})).get_trace(x))
        found[-1].compute_log_prob()
    return torch.stack([trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"] for trace in found], 1)


@EACH
def test_the_formulas_are_those_of_the_program(name, device):
    model, x = make(name, device=device)
    joint = table(model, x)
    assert torch.allclose(model.log_prob(x), joint.logsumexp(1), rtol=1e-10)
    assert torch.allclose(model.responsibilities(x), joint.softmax(1), atol=1e-10)
    with torch.no_grad():
        assert torch.allclose(model.log_prob(x), joint.logsumexp(1), rtol=1e-8)
        assert model.statistics(x)["log_likelihood"].item() == pytest.approx(joint.logsumexp(1).sum().item(), rel=1e-9)
    assert model.weights.sum().item() == pytest.approx(1)


@EACH
@pytest.mark.parametrize("bound", [ELBO(), ELBO(3), IWAE(3)], ids=["1", "3", "iwae"])
def test_every_bound_is_exact_with_any_sample(name, bound):
    model, x = make(name)
    assert torch.allclose(bound.per_datum(model.model, model.guide, x), model.log_prob(x), rtol=1e-9)


@DRAWN
@EACH
def test_stock_bounds_are_exact(name):
    model, x = make(name)
    expected = -model.log_prob(x).sum().item()
    assert Trace_ELBO().loss(model.model, model.guide, x) == pytest.approx(expected, rel=1e-9)
    enumerated = TraceEnum_ELBO(max_plate_nesting=1)
    assert enumerated.loss(model.model, model.guide, x) == pytest.approx(expected, rel=1e-9)


@EACH
def test_the_estimate_of_the_log_likelihood_is_exact(name):
    model, x = make(name)
    found = log_likelihood(model.model, model.guide, x, num_samples=4)
    assert torch.allclose(-found.values, model.log_prob(x).cpu(), rtol=1e-6)


@EACH
def test_enumeration_has_the_gradient_of_the_likelihood(name):
    model, x = make(name)
    parameters = list(model.parameters())
    exact = torch.autograd.grad(-model.log_prob(x).sum(), parameters)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model.model, model.guide, x)
    for found, expected in zip(torch.autograd.grad(loss, parameters), exact, strict=True):
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)


@DRAWN
@EACH
@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceEnum_ELBO(max_plate_nesting=1), ELBO()], ids=["1", "enum", "ours"])
def test_it_trains_by_svi(name, elbo):
    model, x = make(name)
    before = model.log_prob(x).sum().item()
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.02}), elbo)
    for _ in range(40):
        svi.step(x)
    assert model.log_prob(x).sum().item() > before


@EACH
def test_it_trains_by_a_gradient_step(name):
    model, x = make(name)
    objective = Objective(model.model, model.guide, ELBO())
    step = GradientStep(objective, torch.optim.Adam(model.parameters(), lr=0.02))
    losses = [step(x)["loss"].item() for _ in range(40)]
    assert losses[-1] < losses[0]


@EACH
def test_it_dreams_what_it_scores(name, device):
    model, x = make(name, device=device)
    dream = model.model(size=7)
    assert dream.shape == (7, *x.shape[1:])
    assert dream.dtype == x.dtype
    assert dream.device == x.device
    assert model.model(x) is x
    assert model.guide(dream).shape == (7,)
    assert Predictive(model.model, guide=model.guide, num_samples=3)(x)["z"].shape == (3, 40)
    assert Predictive(model.model, num_samples=3)(size=4)["x"].shape == (3, 4, *x.shape[1:])


@EACH
def test_it_copies_pickles_and_loads(name):
    model, x = make(name)
    em(model, x, sweeps=2)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.log_prob(x), model.log_prob(x))
    other = MIXTURES[name]().double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.log_prob(x), model.log_prob(x))


@EACH
def test_nothing_and_one_datum(name):
    model, x = make(name)
    assert model.log_prob(x[:0]).shape == (0,)
    with torch.no_grad():
        assert model.responsibilities(x[:0]).shape == (0, 3)
    assert model.log_prob(x[:1]).shape == (1,)
    with pytest.raises(ValueError, match="empty batch"):
        EM(model)(x[:0])


@EACH
def test_em_does_not_see_gradients(name):
    model, x = make(name)
    found = model.statistics(x)
    assert not any(value.requires_grad for value in found.values())
    assert all(value.dtype == torch.float64 for value in found.values())
    before = list(model.parameters())
    model.start(x)
    model.maximize(model.statistics(x))
    assert all(a is b and a.requires_grad for a, b in zip(model.parameters(), before, strict=True))
