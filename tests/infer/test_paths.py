# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Gradients through the samples (sticking the landing, doubly reparameterised), against the plain derivative."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.infer import CIWAE, CUBO, ELBO, IWAE, MIWAE, PIWAE, Objective, Renyi, SiteWeights
from pyro_dgm.infer.gradients import credits, slopes
from tests.oracles import BernoulliLatent, LinearGaussian, agree, gradients


class Chain(nn.Module):
    """A hierarchy z1 -> z2 -> x of normal variables whose guide is a chain too; no parameter is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.8, 1.2], dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor([0.5, -0.3, 0.4], dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor([-0.4, 0.1], dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(len(x)), 1.0))
            z2 = pyro.sample("z2", dist.Normal(self.weight[0] * z1, 0.7))
            pyro.sample("x", dist.Normal(self.weight[1] * z2, 0.9), obs=x)

    def guide(self, x):
        scale = self.log_scale.exp()
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.slope[0] * x, scale[0]))
            pyro.sample("z2", dist.Normal(self.slope[1] * x + self.slope[2] * z1, scale[1]))

    @property
    def own(self):
        return [self.slope, self.log_scale]


X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)


UNBIASED = {
    "ELBO, stl": (partial(ELBO, 3), "stl"),
    "ELBO, dreg": (partial(ELBO, 3), "dreg"),
    "ELBO, closed forms": (partial(ELBO, 2, analytic_kl=True), "stl"),
    "ELBO, closed forms, weights": (partial(ELBO, 2, kl=SiteWeights({"z1": 0.3, "z2": 2.0}), analytic_kl=True), "stl"),
    "ELBO, weights of sites": (partial(ELBO, 2, kl=SiteWeights({"z1": 0.3, "z2": 2.0})), "stl"),
    "ELBO, beta, stl": (partial(ELBO, 2, beta=0.3), "stl"),
    "IWAE": (partial(IWAE, 4), "dreg"),
    "IWAE, one particle": (partial(IWAE, 1), "dreg"),
    "IWAE, beta": (partial(IWAE, 4, beta=0.4), "dreg"),
    "CIWAE": (partial(CIWAE, 4, mix=0.3), "dreg"),
    "MIWAE": (partial(MIWAE, 4, groups=2), "dreg"),
    "PIWAE": (partial(PIWAE, 4, groups=2), "dreg"),
    "Renyi": (partial(Renyi, 3, alpha=0.6), "dreg"),
    "Renyi, alpha 3": (partial(Renyi, 3, alpha=3), "dreg"),
    "Renyi, alpha -1": (partial(Renyi, 3, alpha=-1), "dreg"),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_path_has_the_mean_of_the_plain_derivative(name):
    make, gradient = UNBIASED[name]
    chain = Chain()
    parameters = list(chain.parameters())
    plain = gradients(make(), chain, parameters, X)
    path = gradients(make(gradient=gradient), chain, parameters, X)
    assert agree(path, plain)
    assert (plain.mean(0).abs() > 5 * plain.std(0) / len(plain) ** 0.5).any()


def test_stl_of_a_bound_that_is_not_linear_has_a_bias():
    """Which is why there is "dreg": without it the guide of an IWAE is taught something else (Tucker et al. 2019)."""
    chain = Chain()
    plain = gradients(IWAE(4), chain, chain.own, X)
    assert not agree(gradients(IWAE(4, gradient="stl"), chain, chain.own, X), plain)


def test_a_guide_and_a_model_may_share_parameters():
    oracle = LinearGaussian(widen=1.5)
    x = oracle.data(3)
    plain = gradients(IWAE(3), oracle, [oracle.weight], x=x)
    path = gradients(IWAE(3, gradient="dreg"), oracle, [oracle.weight], x=x)
    assert agree(path, plain)


@pytest.mark.parametrize("kind", [ELBO, IWAE, PIWAE])
def test_the_path_is_scaled_with_its_data(kind):
    oracle = LinearGaussian(widen=1.5, subsample=300)
    x = oracle.data(6)
    options = {"groups": 2} if kind is PIWAE else {}
    plain = gradients(kind(2, **options), oracle, [oracle.weight], x=x, copies=100)
    path = gradients(kind(2, gradient="dreg", **options), oracle, [oracle.weight], x=x, copies=100)
    halved = pyro.poutine.scale(oracle.model, scale=0.5), pyro.poutine.scale(oracle.guide, scale=0.5)
    assert agree(path, plain)

    class Halved:
        model, guide = halved

    assert agree(
        gradients(kind(2, gradient="dreg", **options), Halved, [oracle.weight], x=x, copies=100, scale=2), plain
    )


def test_stl_of_an_elbo_takes_sites_of_different_scales():
    chain = Chain()
    halved = pyro.poutine.scale(chain.guide, scale=0.5)

    class Pair:
        model, guide = staticmethod(chain.model), halved

    parameters = list(chain.parameters())
    plain = gradients(ELBO(2), Pair, parameters, X)
    path = gradients(ELBO(2, gradient="stl"), Pair, parameters, X)
    assert agree(path, plain)


def test_at_the_exact_posterior_stl_has_no_variance_at_all():
    """Roeder et al. 2017, section 3: every single gradient of the guide is zero there, and of "total" it is not."""
    oracle = LinearGaussian()
    x = oracle.data(5)
    mean, covariance = (part.detach() for part in oracle.posterior(x))
    location = nn.Parameter(mean.clone())
    factor = nn.Parameter(torch.linalg.cholesky(covariance))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(location, scale_tril=factor))

    for kind in (partial(ELBO, 1), partial(ELBO, 4), partial(IWAE, 4)):
        for gradient, zero in (("stl", True), ("dreg", True), ("total", False)):
            loss = kind(gradient=gradient).differentiable_loss(oracle.model, guide, x)
            parts = torch.autograd.grad(loss, [location, factor])
            assert all((part.abs() < 1e-9).all() == zero for part in parts)


def test_the_value_does_not_depend_on_the_gradient():
    chain = Chain()
    for kind in (ELBO, IWAE, CIWAE, Renyi, MIWAE, PIWAE):
        found = []
        for gradient in ("total", "stl", "dreg", "vimco"):
            torch.manual_seed(0)
            found.append(kind(4, gradient=gradient).differentiable_loss(chain.model, chain.guide, X).detach())
        assert all(torch.allclose(value, found[0], rtol=1e-12) for value in found)


def test_the_models_gradient_does_not_depend_on_the_gradient():
    chain = Chain()
    for kind in (ELBO, IWAE, CIWAE, Renyi, MIWAE, PIWAE):
        found = []
        for gradient in ("total", "stl", "dreg"):
            torch.manual_seed(0)
            loss = kind(4, gradient=gradient).differentiable_loss(chain.model, chain.guide, X)
            found.append(torch.autograd.grad(loss, chain.weight)[0])
        assert all(torch.allclose(value, found[0], rtol=1e-10) for value in found)


def test_piwae_gives_each_its_own_bound():
    """At one seed the model's gradient is IWAE's and the guide's is MIWAE's, to rounding."""
    chain = Chain()

    def gradient(bound, parameters):
        torch.manual_seed(0)
        return torch.autograd.grad(bound.differentiable_loss(chain.model, chain.guide, X), parameters)

    for way in ("total", "stl", "dreg"):
        both = gradient(PIWAE(6, groups=3, gradient=way), [chain.weight, *chain.own])
        expected = [
            *gradient(IWAE(6, gradient=way), [chain.weight]),
            *gradient(MIWAE(6, groups=3, gradient=way), chain.own),
        ]
        assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(both, expected, strict=True))


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_a_site_without_path_is_named(gradient):
    oracle = BernoulliLatent()
    with pytest.raises(ValueError, match=r"\['z'\].*vimco"):
        IWAE(3, gradient=gradient).differentiable_loss(oracle.model, oracle.guide, X)
    assert IWAE(3, gradient=gradient).loss(oracle.model, oracle.guide, X).isfinite()


def test_unknown_gradients_are_refused():
    with pytest.raises(ValueError, match="'total', 'dreg'"):
        CUBO(3, gradient="stl")
    with pytest.raises(ValueError, match="num_particles=2"):
        IWAE(1, gradient="vimco")


def test_an_objective_trains_by_the_path():
    chain = Chain()
    objective = Objective(chain.model, chain.guide, IWAE(5, gradient="dreg"))
    terms = objective(X)
    terms["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in chain.parameters())
    assert not terms["log_q.z1"].requires_grad


@pytest.mark.parametrize("bound", [ELBO(5), IWAE(5), CIWAE(5), Renyi(5, alpha=2.0), MIWAE(6, groups=2)])
def test_formulas_for_slopes_are_derivatives(bound):
    log_w = torch.randn(bound.num_particles, 4, dtype=torch.float64) * 3
    first, second = bound._slopes(log_w)
    generic = slopes(bound.bound, log_w)
    assert torch.allclose(first, generic[0], atol=1e-10)
    assert torch.allclose(second, generic[1], atol=1e-10)


def test_vimcos_baseline_is_the_geometric_mean():
    log_w = torch.randn(4, 3, dtype=torch.float64)
    signal = credits(IWAE(4).bound, log_w, geometric=True)
    for k in range(4):
        replaced = log_w.clone()
        replaced[k] = log_w[[i for i in range(4) if i != k]].mean(0)
        assert torch.allclose(signal[k], IWAE(4).bound(log_w) - IWAE(4).bound(replaced))


def test_groups_credit_their_own_particles_only():
    log_w = torch.randn(4, 3, dtype=torch.float64)
    signal = MIWAE(4, groups=2)._signal(log_w)
    assert torch.allclose(signal[:2], credits(IWAE(2).bound, log_w[:2]) / 2)
    assert torch.allclose(signal[2:], credits(IWAE(2).bound, log_w[2:]) / 2)


def test_a_weight_of_zero_leaves_the_path_finite():
    loc = torch.zeros(200, dtype=torch.float64, requires_grad=True)

    def model():
        with pyro.plate("data", 200):
            z = pyro.sample("z", dist.Normal(torch.zeros(200).double(), 1.0))
            pyro.factor("f", torch.zeros_like(z).masked_fill(z < 0, -math.inf))

    def guide():
        with pyro.plate("data", 200):
            pyro.sample("z", dist.Normal(loc, 1.0))

    for bound in (IWAE(3, gradient="dreg"), IWAE(3), Renyi(3, alpha=0.5, gradient="stl")):
        loss = bound.differentiable_loss(model, guide)
        assert torch.autograd.grad(loss, loc)[0].isfinite().all()
        assert not loss.isnan()
