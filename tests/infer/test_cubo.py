# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The chi upper bound: what is guaranteed of its estimate, of its gradient, and what a guide learns from it."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.infer import CUBO, ELBO, Objective, cubo, log_weights
from tests.oracles import BernoulliLatent, LinearGaussian, within

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)


class Conjugate(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 1), with a normal guide: every moment of the weights is known."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc * x, self.scale))

    def exact(self, x, order):
        """CUBO_n of each datum by quadrature over a wide grid."""
        z = torch.linspace(-15, 15, 20_001, dtype=torch.float64).unsqueeze(1)
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)
        log_q = dist.Normal(self.loc * x, self.scale).log_prob(z)
        return ((order * log_p + (1 - order) * log_q).logsumexp(0) + (z[1] - z[0]).log()) / order


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("particles", [1, 2, 5, 50])
def test_the_moment_is_estimated_without_bias(particles, order):
    pair = Conjugate()
    with torch.no_grad():
        log_w = log_weights(pair.model, pair.guide, X.repeat(20_000), particles=particles).log_w
        moments = (order * cubo(log_w, order)).exp().reshape(20_000, len(X))
        assert within(moments, (order * pair.exact(X, order)).exp())


def test_the_bound_is_above_log_p_and_its_estimate_rises_to_it():
    pair = Conjugate()
    exact = pair.exact(X, 2).detach()
    log_p = dist.Normal(0.0, 2**0.5).log_prob(X)
    assert (exact > log_p).all()
    means = []
    with torch.no_grad():
        for particles in (1, 5, 50, 2000):
            values = CUBO(particles).per_datum(pair.model, pair.guide, X.repeat(300)).reshape(300, len(X))
            error = values.std(0) / 300**0.5
            assert (values.mean(0) <= exact + 5 * error).all()
            means.append(values.mean(0))
        assert (means[0] < log_p).all()  # one particle: the ELBO
        assert (means[-1] > log_p).all()
        assert ((means[-1] - exact).abs() < 0.02).all()


@pytest.mark.parametrize("particles", [1, 2, 4])
@pytest.mark.parametrize("order", [2, 3.5])
def test_times_the_moment_the_gradient_has_no_bias(particles, order):
    """Summed over all states of the particles, exactly."""
    oracle, bound = BernoulliLatent(), CUBO(particles, order=order)
    log_w, log_q = oracle.table(X)
    exact = torch.autograd.grad((log_q + order * log_w).logsumexp(0).exp().sum() / order, oracle.slope)[0]
    total = 0.0
    for states in itertools.product([0, 1], repeat=particles):
        w, q = (part[torch.tensor(states)] for part in oracle.table(X))
        weights = w.detach()
        lesson = (bound._shares(weights).score * q).sum(0)
        chance = q.detach().sum(0).exp()
        total = total + (chance * (order * bound.bound(weights)).exp() * lesson).sum()
    assert torch.allclose(torch.autograd.grad(total, oracle.slope)[0], exact)


@pytest.mark.parametrize("gradient", ["total", "dreg"])
@pytest.mark.parametrize("order", [2, 3])
def test_the_gradient_is_that_of_the_bound_as_particles_grow(order, gradient):
    pair, bound = Conjugate(), CUBO(3000, order=order, gradient=gradient)
    parameters = [pair.loc, pair.scale]
    exact = torch.stack(torch.autograd.grad(pair.exact(X, order).sum(), parameters))
    rounds = []
    for _ in range(80):
        loss = bound.differentiable_loss(pair.model, pair.guide, X)
        rounds.append(torch.stack(torch.autograd.grad(loss, parameters)))
    rounds = torch.stack(rounds)
    error = rounds.std(0) / len(rounds) ** 0.5
    assert ((rounds.mean(0) - exact).abs() <= 5 * error + 0.02 * exact.abs()).all()


def test_near_the_posterior_the_path_has_less_variance():
    pair, spreads = Conjugate(), []
    with torch.no_grad():
        pair.loc.fill_(0.5)
        pair.scale.fill_(0.75)  # the posterior's is 0.707
    for gradient in ("dreg", "total"):
        bound = CUBO(20, gradient=gradient)
        rounds = [
            torch.autograd.grad(bound.differentiable_loss(pair.model, pair.guide, X), pair.loc)[0] for _ in range(300)
        ]
        spreads.append(torch.stack(rounds).var())
    assert spreads[0] < spreads[1] / 4


def test_the_loss_is_the_bound_and_the_model_learns_nothing_from_it():
    oracle = LinearGaussian(widen=1.5, outside=True)
    x = oracle.data(4)
    with torch.no_grad():
        mean, covariance = oracle.posterior(x)
    weight = oracle.weight
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def guide(x):
        with oracle.plate(x):
            pyro.sample("z", dist.MultivariateNormal(mean, scale * covariance))

    bound = CUBO(50)
    torch.manual_seed(0)
    loss = bound.differentiable_loss(oracle.model, guide, x)
    torch.manual_seed(0)
    value = bound.per_datum(oracle.model, guide, x)
    assert torch.allclose(loss, value.sum() + oracle.outside_log_prob())
    torch.manual_seed(0)
    assert torch.allclose(Objective(oracle.model, guide, bound)(x)["loss"], loss / 4)
    gradients = torch.autograd.grad(loss, [weight, scale], allow_unused=True)
    assert gradients[0] is None or (gradients[0] == 0).all()
    assert gradients[1] != 0


@pytest.mark.parametrize("gradient", ["total", "dreg"])
def test_a_guide_that_minimises_it_covers_what_the_elbos_does_not(gradient):
    """A diagonal guide of a correlated normal: the ELBO's is too narrow, the chi bound's too wide."""
    precision = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64).inverse()
    spread = {}
    for name, bound in (("elbo", ELBO(20)), ("cubo", CUBO(200, gradient=gradient))):
        log_scale = torch.zeros(2, dtype=torch.float64, requires_grad=True)

        def model():
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2).double(), precision_matrix=precision))
            assert z.shape[-1] == 2

        def guide(log_scale=log_scale):
            pyro.sample("z", dist.Normal(torch.zeros(2).double(), log_scale.exp()).to_event(1))

        optimizer = torch.optim.Adam([log_scale], lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            bound.differentiable_loss(model, guide).backward()
            optimizer.step()
        spread[name] = log_scale.detach().exp()
    assert (spread["elbo"] - (1 - 0.8**2) ** 0.5).abs().max() < 0.07  # 1 / sqrt of the precision's diagonal
    assert (spread["cubo"] > 1.0).all()
