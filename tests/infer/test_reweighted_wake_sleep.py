# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Reweighted wake-sleep against exact gradients: enumeration of a bit, and sums over what the model dreams."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI

from pyro_dgm.infer import IWAE, Objective, ReweightedWakeSleep
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from tests.oracles import BernoulliLatent, LinearGaussian, within

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)


def exact_wake(oracle, particles):
    """The model's gradient of E[IWAE], and E[sum of normalised weights times grad log q], over all 2^K states."""
    bound_total, guide_total = 0.0, 0.0
    for states in itertools.product([0, 1], repeat=particles):
        log_w, log_q = (part[torch.tensor(states)] for part in oracle.table(X))
        chance = log_q.detach().sum(0).exp()
        bound_total = bound_total + (chance * IWAE(particles).bound(log_w)).sum()
        guide_total = guide_total + (chance * (log_w.detach().softmax(0) * log_q).sum(0)).sum()
    model = torch.autograd.grad(bound_total, [oracle.prior_logit, oracle.mean], retain_graph=True)
    return torch.stack([*model, torch.autograd.grad(guide_total, oracle.slope)[0]])


def exact_sleep(oracle):
    """Grad of E_p[log q(z | x)] to the slope, by quadrature over x."""
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    log_p = dist.Bernoulli(logits=oracle.prior_logit).log_prob(z) + dist.Normal(z * oracle.mean, 1.0).log_prob(x)
    log_q = dist.Bernoulli(logits=oracle.slope * x).log_prob(z.expand(2, len(x)))
    return torch.autograd.grad((log_p.detach().exp() * log_q).sum() * (x[1] - x[0]), oracle.slope)[0]


def estimates(bound, oracle, x, *, rounds=30, divide=1.0):
    found = []
    for _ in range(rounds):
        loss = bound.differentiable_loss(oracle.model, oracle.guide, x)
        found.append(torch.stack(torch.autograd.grad(-loss, list(oracle.parameters()))) / divide)
    return torch.stack(found)


@pytest.mark.parametrize("particles", [1, 2, 4])
def test_the_wake_phase_agrees_with_enumeration(particles):
    oracle = BernoulliLatent()
    found = estimates(ReweightedWakeSleep(particles), oracle, X.repeat(1000), divide=1000)
    assert within(found, exact_wake(oracle, particles))


@pytest.mark.parametrize("insomnia", [0.0, 0.4])
def test_the_sleep_phase_agrees_with_quadrature(insomnia):
    oracle = BernoulliLatent()
    found = estimates(ReweightedWakeSleep(3, insomnia=insomnia), oracle, X.repeat(1000), divide=1000)
    exact = exact_wake(oracle, 3)
    exact[2] = insomnia * exact[2] + (1 - insomnia) * 3 * exact_sleep(oracle)  # a dream for each of three data
    assert within(found, exact)


@pytest.mark.parametrize("insomnia", [0.0, 1.0])
def test_a_subsample_estimates_the_gradient_of_all_data(insomnia):
    oracle = BernoulliLatent()
    oracle.subsample = 600
    found = estimates(ReweightedWakeSleep(3, insomnia=insomnia), oracle, X.repeat(1000), divide=1000)
    exact = exact_wake(oracle, 3)
    if insomnia == 0:
        exact[2] = 3 * exact_sleep(oracle)
    assert within(found, exact)


def test_the_weights_are_normalised_for_each_datum():
    """One batch gives the gradient that its data give one by one, at the same particles."""
    oracle, bound = BernoulliLatent(), ReweightedWakeSleep(4)
    weights = bound.log_weights(oracle.model, oracle.guide, X)
    together = torch.autograd.grad(bound.total(weights), oracle.slope, retain_graph=True)[0]
    log_q = weights.guide_terms["z"]
    alone = [(weights.log_w[:, i].detach().softmax(0) * log_q[:, i]).sum() for i in range(3)]
    assert torch.allclose(together, torch.autograd.grad(sum(alone), oracle.slope)[0])


def test_the_path_of_the_wake_phase_has_its_mean():
    oracle = LinearGaussian(widen=1.6)
    x = oracle.data(3)
    slope = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.4, dtype=torch.float64, requires_grad=True)
    mean, covariance = (part.detach() for part in oracle.posterior(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(slope * mean.repeat(len(x) // 3, 1), scale * covariance))

    found = {}
    for gradient in ("total", "dreg"):
        bound, rounds = ReweightedWakeSleep(4, gradient=gradient), []
        for _ in range(60):
            loss = bound.differentiable_loss(oracle.model, guide, x.repeat(300, 1))
            rounds.append(torch.stack(torch.autograd.grad(loss, [slope, scale])) / 300)
        found[gradient] = torch.stack(rounds)
    error = sum(rounds.var(0) / len(rounds) for rounds in found.values()).sqrt()
    assert ((found["total"].mean(0) - found["dreg"].mean(0)).abs() <= 5 * error).all()
    assert (found["dreg"].var(0) < found["total"].var(0)).all()


def test_the_value_is_that_of_iwae():
    oracle = BernoulliLatent()
    found = []
    for bound in (IWAE(4), ReweightedWakeSleep(4), ReweightedWakeSleep(4, insomnia=0.3)):
        torch.manual_seed(0)
        found.append(bound.differentiable_loss(oracle.model, oracle.guide, X).detach())
        torch.manual_seed(0)
        found.append(bound.loss(oracle.model, oracle.guide, X))
    assert all(torch.allclose(value, found[0]) for value in found)


@pytest.mark.parametrize("insomnia", [0.0, 0.5, 1.0])
def test_it_finds_the_posterior_of_a_bit_in_svi(insomnia):
    """The exact posterior of the oracle's bit is logistic in x with slope equal to the mean."""
    oracle = BernoulliLatent()
    bias = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    oracle.bias = bias
    with torch.no_grad():
        bit = torch.rand(4000).double() < torch.sigmoid(oracle.prior_logit)
        x = bit * oracle.mean + torch.randn(4000).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=oracle.prior_logit.detach()))
            pyro.sample("x", dist.Normal(z * oracle.mean.detach(), 1.0), obs=x)

    def guide(x):
        pyro.module("oracle", oracle)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=oracle.slope * x + bias))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), ReweightedWakeSleep(10, insomnia=insomnia))
    for _ in range(300):
        svi.step(x)
    logit = oracle.prior_logit - oracle.mean**2 / 2
    assert oracle.slope.item() == pytest.approx(oracle.mean.item(), abs=0.12)
    assert bias.item() == pytest.approx(logit.item(), abs=0.15)


@pytest.mark.parametrize("insomnia", [0.5, 1.0])
def test_an_objective_trains_a_vae_by_it(insomnia):
    vae = VAE(shape=(8, 8), levels=2, latent=3, encoder=lambda a, b: MLP(a, b, hidden=(8,)), decoder=MLP)
    objective = Objective(vae.model, vae.guide, ReweightedWakeSleep(3, insomnia=insomnia))
    objective(torch.randint(0, 2, (5, 8, 8)))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in vae.parameters())


def test_a_guide_that_cannot_be_run_on_dreams_is_refused():
    bound = ReweightedWakeSleep(2, insomnia=0.5)
    oracle = LinearGaussian(outside=True)
    with pytest.raises(ValueError, match="one observed site of that shape"):
        bound.differentiable_loss(oracle.model, oracle.guide, oracle.data(3))
    for insomnia in (-0.1, 1.1):
        with pytest.raises(ValueError, match="insomnia"):
            ReweightedWakeSleep(2, insomnia=insomnia)
