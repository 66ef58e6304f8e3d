# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of K-particle bounds against exact ones: enumeration for a bit, autodiff of log p for Gaussians."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_dgm.infer import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Bound, Renyi
from tests.cases import BOUNDS
from tests.oracles import BernoulliLatent, LinearGaussian, within

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)
ROUNDS = 20_000


def exact_gradient(oracle, bound, particles):
    """Differentiate E[bound] by summing over all 2^K states of the particles."""
    log_w, log_q = oracle.table(X)
    total = 0.0
    for states in itertools.product([0, 1], repeat=particles):
        index = torch.tensor(states)
        total = total + (log_q[index].sum(0).exp() * bound.bound(log_w[index])).sum()
    return torch.autograd.grad(total, list(oracle.parameters())), total.detach()


@pytest.mark.parametrize("particles", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", [ELBO, IWAE])
def test_discrete_gradients_agree_with_enumeration(kind, particles):
    """Averaging independent copies of the data in one plate gives many estimates of the gradient at once."""
    oracle, bound = BernoulliLatent(), kind(particles)
    exact, value = exact_gradient(oracle, bound, particles)
    gradients, values = [], []
    for _ in range(25):
        loss = bound.differentiable_loss(oracle.model, oracle.guide, X.repeat(ROUNDS // 25))
        gradients.append(torch.stack(torch.autograd.grad(-loss, list(oracle.parameters()))) * 25 / ROUNDS)
        values.append(-loss.detach() * 25 / ROUNDS)
    assert within(torch.stack(values), value)
    assert within(torch.stack(gradients), torch.stack(exact))
    assert all(gradient.abs() > 1e-3 for gradient in exact)  # none is zero, as it is in RenyiELBO for the guide


MORE = {
    "CIWAE": partial(CIWAE, 3, mix=0.3),
    "CIWAE, vimco": partial(CIWAE, 3, mix=0.3, gradient="vimco"),
    "ELBO, vimco": partial(ELBO, 2, gradient="vimco"),
    "IWAE, vimco": partial(IWAE, 3, gradient="vimco"),
    "IWAE, vimco, 2": partial(IWAE, 2, gradient="vimco"),
    "MIWAE": partial(MIWAE, 4, groups=2),
    "MIWAE, vimco": partial(MIWAE, 4, groups=2, gradient="vimco"),
    "Renyi": partial(Renyi, 3, alpha=0.5),
    "Renyi, alpha 2.5": partial(Renyi, 3, alpha=2.5),
    "Renyi, alpha -1, vimco": partial(Renyi, 3, alpha=-1, gradient="vimco"),
}


@pytest.mark.parametrize("name", MORE)
def test_every_bound_and_baseline_agrees_with_enumeration(name):
    oracle, bound = BernoulliLatent(), MORE[name]()
    exact, _ = exact_gradient(oracle, bound, bound.num_particles)
    gradients = []
    for _ in range(25):
        loss = bound.differentiable_loss(oracle.model, oracle.guide, X.repeat(400))
        gradients.append(torch.stack(torch.autograd.grad(-loss, list(oracle.parameters()))) / 400)
    assert within(torch.stack(gradients), torch.stack(exact))


@pytest.mark.parametrize("gradient", ["total", "vimco"])
def test_piwae_agrees_with_enumeration_of_each_of_its_bounds(gradient):
    oracle, bound = BernoulliLatent(), PIWAE(4, groups=2, gradient=gradient)
    tight, _ = exact_gradient(oracle, IWAE(4), 4)
    grouped, _ = exact_gradient(oracle, MIWAE(4, groups=2), 4)
    exact = torch.stack([*tight[:2], grouped[2]])  # prior and mean are the model's, the slope is the guide's
    gradients = []
    for _ in range(25):
        loss = bound.differentiable_loss(oracle.model, oracle.guide, X.repeat(400))
        gradients.append(torch.stack(torch.autograd.grad(-loss, list(oracle.parameters()))) / 400)
    assert within(torch.stack(gradients), exact)


SCALES = {
    "halved": (lambda program: poutine.scale(program, scale=0.5), 0.5),
    "by a tensor": (lambda program: poutine.scale(program, scale=torch.tensor(2.0)), 2.0),
    "subsampled": (lambda program: program, 1.0),
}


@pytest.mark.parametrize("particles", [1, 2])
@pytest.mark.parametrize("kind", [ELBO, IWAE])
@pytest.mark.parametrize("scale", SCALES)
def test_discrete_gradients_scale_with_their_data(scale, kind, particles):
    oracle, bound = BernoulliLatent(), kind(particles)
    wrap, factor = SCALES[scale]
    exact, _ = exact_gradient(oracle, bound, particles)
    x = X.repeat(1000)
    if scale == "subsampled":
        oracle.subsample = 1500
    gradients = []
    for _ in range(30):
        loss = bound.differentiable_loss(wrap(oracle.model), wrap(oracle.guide), x)
        gradients.append(torch.stack(torch.autograd.grad(-loss, list(oracle.parameters()))) / 1000)
    assert within(torch.stack(gradients), factor * torch.stack(exact))


def coupled(logits):
    """Three bits whose sum is observed outside their plate."""

    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5, dtype=torch.float64)))
        pyro.sample("y", dist.Normal(z.sum(-1, keepdim=z.dim() > 1), 1.0), obs=torch.tensor(3.0, dtype=torch.float64))

    def guide():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    return model, guide


ONE = {"groups": 1}


@pytest.mark.parametrize("bound", [ELBO(1), ELBO(3), IWAE(1), MIWAE(1, **ONE), PIWAE(1, **ONE)])
def test_a_site_that_couples_the_data_teaches_them(bound):
    logits = torch.tensor([0.3, -0.4, 0.6], dtype=torch.float64, requires_grad=True)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    log_q = dist.Bernoulli(logits=logits).log_prob(states).sum(-1)
    log_p = 3 * math.log(0.5) + dist.Normal(states.sum(-1), 1.0).log_prob(torch.tensor(3.0, dtype=torch.float64))
    exact = torch.autograd.grad((log_q.exp() * (log_p - log_q)).sum(), logits)[0]
    gradients = []
    for _ in range(500):
        loss = bound.differentiable_loss(*coupled(logits))
        gradients.append(torch.autograd.grad(-loss, logits)[0])
    assert within(torch.stack(gradients), exact)


class Mixed(torch.nn.Module):
    """A normal variable and a bit, whose posterior depends on the normal one; a site outside the plate has both."""

    def __init__(self, *, outside=False):
        super().__init__()
        self.outside = outside
        self.numbers = torch.nn.Parameter(torch.tensor([0.4, -0.7, 1.3], dtype=torch.float64))
        self.mean = torch.nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            bit = pyro.sample("bit", dist.Bernoulli(x.new_full((len(x),), 0.4)))
            pyro.sample("x", dist.Normal(z + self.mean * bit, 0.7), obs=x)
        if self.outside:
            pyro.sample("y", dist.Normal((z + bit).sum(-1), 1.0), obs=x.new_ones(()))

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.numbers[0] * x, 0.8))
            pyro.sample("bit", dist.Bernoulli(logits=self.numbers[1] * z + self.numbers[2]))


@pytest.mark.parametrize(("particles", "groups", "far"), [(4, 2, False), (4, 4, False), (1, 1, False), (1, 1, True)])
def test_piwae_teaches_a_bit_through_what_was_sampled_before_it(particles, groups, far):
    """At one seed its guide has the gradient of MIWAE, to rounding, and its model that of IWAE."""
    pair, found = Mixed(outside=far), []
    for bound in (PIWAE(particles, groups=groups), MIWAE(particles, groups=groups), IWAE(particles)):
        torch.manual_seed(0)
        loss = bound.differentiable_loss(pair.model, pair.guide, X)
        found.append(torch.autograd.grad(loss, [pair.numbers, pair.mean]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-9)
    assert torch.allclose(found[0][1], found[2][1], rtol=1e-9)


@pytest.mark.parametrize("kind", [MIWAE, PIWAE])
def test_groups_of_one_have_the_others_as_baseline(kind):
    """Far from zero the weights themselves would be nothing but noise: the gradient's spread is that of the ELBO's."""
    log_w = torch.randn(5, 3, dtype=torch.float64) - 1000
    assert torch.allclose(kind(5, groups=5)._signal(log_w), ELBO(5)._signal(log_w))
    oracle, spreads = BernoulliLatent(), []

    def model(x):
        oracle.model(x)
        with pyro.plate("more", len(x)):
            pyro.factor("far", x.new_full((len(x),), 100.0))

    for bound in (kind(8, groups=8), ELBO(8)):
        torch.manual_seed(0)
        gradients = [
            torch.autograd.grad(bound.differentiable_loss(model, oracle.guide, X), oracle.slope)[0] for _ in range(50)
        ]
        spreads.append(torch.stack(gradients).std())
    assert spreads[0] < 1.5 * spreads[1]
    with pytest.raises(ValueError, match="give fewer groups"):
        kind(4, groups=4, gradient="vimco")
    assert kind(4, groups=2, gradient="vimco").gradient == "vimco"


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("name", [name for name in BOUNDS if "dreg" not in name and "stl" not in name])
def test_weights_of_zero_leave_every_gradient_finite(name, particles, outside):
    """Where a bit that is one cannot have given the datum, or a site outside of the plate."""
    logits = torch.zeros(6, requires_grad=True)

    def model():
        with pyro.plate("data", 6):
            z = pyro.sample("z", dist.Bernoulli(torch.full((6,), 0.5)))
            pyro.factor("f", torch.where(z > 0, -math.inf, 0.0))
        if outside:
            pyro.factor("g", torch.where(z.sum(-1, keepdim=z.dim() > 1) > 0, -math.inf, 0.0))

    def guide():
        with pyro.plate("data", 6):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    for seed in range(5):
        torch.manual_seed(seed)
        loss = BOUNDS[name](particles).differentiable_loss(model, guide)
        assert not loss.isnan()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_a_particle_of_weight_zero_leaves_the_gradient_finite():
    logits = torch.zeros(200, requires_grad=True)

    def model():
        with pyro.plate("data", 200):
            z = pyro.sample("z", dist.Bernoulli(torch.full((200,), 0.5)))
            pyro.factor("f", torch.where(z > 0, 0.0, -math.inf))

    def guide():
        with pyro.plate("data", 200):
            pyro.sample("z", dist.Bernoulli(logits=logits + 2.0))

    weights = IWAE(6).log_weights(model, guide)
    assert weights.log_w.isinf().any()
    alive = ~weights.log_w.isinf().all(0)
    value, surrogate = IWAE(6).values(weights)
    assert torch.allclose(value[alive], surrogate[alive])
    gradient = torch.autograd.grad(surrogate[alive].sum(), logits)[0]
    assert gradient[alive].isfinite().all()


@pytest.mark.parametrize("particles", [2, 5])
def test_the_elbos_own_baseline_is_the_general_one(particles):
    log_w = torch.randn(particles, 4, dtype=torch.float64)
    assert torch.allclose(ELBO(particles)._signal(log_w), Bound._signal(ELBO(particles), log_w))


@pytest.mark.parametrize("particles", [2, 5])
@pytest.mark.parametrize("kind", [ELBO, IWAE])
def test_the_baseline_lowers_the_variance(kind, particles):
    oracle = BernoulliLatent()

    class WithoutBaseline(kind):
        def _signal(self, log_w):
            return self.bound(log_w).expand_as(log_w)

    spreads = []
    for bound in (kind(particles), WithoutBaseline(particles)):
        torch.manual_seed(0)
        gradients = []
        for _ in range(100):
            loss = bound.differentiable_loss(oracle.model, oracle.guide, X)
            gradients.append(torch.autograd.grad(loss, oracle.slope)[0])
        spreads.append(torch.stack(gradients).var())
    assert spreads[0] < spreads[1]


def test_the_value_is_the_bound_with_or_without_the_surrogate():
    oracle, bound = BernoulliLatent(), IWAE(4)
    weights = bound.log_weights(oracle.model, oracle.guide, X)
    value, surrogate = bound.values(weights)
    assert torch.equal(value, surrogate)
    assert weights.score is not None


@pytest.mark.parametrize("bound", [ELBO(3), IWAE(3)], ids=["elbo", "iwae"])
def test_the_exact_posterior_gives_the_gradient_of_log_p(bound):
    """At q = p(z | x), held fixed, the gradient of either bound is the gradient of log p(x)."""
    oracle = LinearGaussian()
    x = oracle.data(6)
    exact = torch.autograd.grad(oracle.log_prob(x).sum(), oracle.weight)[0]
    mean, covariance = (part.detach() for part in oracle.posterior(x))
    oracle.posterior = lambda x: (mean.repeat(len(x) // 6, 1), covariance)
    gradients = []
    for _ in range(40):
        loss = bound.differentiable_loss(oracle.model, oracle.guide, x.repeat(500, 1))
        gradients.append(torch.autograd.grad(-loss, oracle.weight)[0] / 500)
    assert within(torch.stack(gradients), exact)
