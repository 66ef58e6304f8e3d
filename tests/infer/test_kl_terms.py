# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""KL terms, sampled and in closed form: one expectation, less noise, and only where the closed form is the term."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import nn

from pyro_dgm.distributions import FlowPosterior, NormalMixture
from pyro_dgm.infer import ELBO, kl_terms, log_weights
from pyro_dgm.infer.kl_terms import kl_terms_by_dimension
from tests.oracles import within

X = torch.tensor([[-0.8, 0.4], [0.3, 1.1], [1.9, -0.2]], dtype=torch.float64)


class Ladder(nn.Module):
    """Two layers of two latent normals each, with a guide from the top down or from the bottom up."""

    def __init__(self, *, upwards=False, subsample=None):
        super().__init__()
        start = torch.tensor([0.7, -0.4, 0.9, 0.5, 0.3, -0.6], dtype=torch.float64)
        self.numbers = nn.Parameter(start)
        self.upwards, self.subsample = upwards, subsample

    def plate(self, x):
        return pyro.plate("data", len(x), subsample_size=self.subsample)

    def model(self, x):
        a, b, c, *_ = self.numbers
        with self.plate(x) as index:
            top = pyro.sample("top", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            low = pyro.sample("low", dist.Normal(a * top, b.exp()).to_event(1))
            pyro.sample("x", dist.Normal(c * low, 0.7).to_event(1), obs=x[index])

    def guide(self, x):
        _, _, _, d, e, f = self.numbers
        with self.plate(x) as index:
            x = x[index]
            if self.upwards:
                low = pyro.sample("low", dist.Normal(d * x, f.exp()).to_event(1))
                pyro.sample("top", dist.Normal(e * low, 0.8).to_event(1))
            else:
                top = pyro.sample("top", dist.Normal(d * x, 0.8).to_event(1))
                pyro.sample("low", dist.Normal(e * x + 0.5 * top, f.exp()).to_event(1))


def total(terms):
    return sum(terms.values())


@pytest.mark.parametrize("upwards", [False, True])
def test_both_forms_have_one_expectation(upwards):
    ladder = Ladder(upwards=upwards)
    weights = log_weights(ladder.model, ladder.guide, X, particles=40_000)
    sampled, closed = (kl_terms(weights, analytic=analytic) for analytic in (False, True))
    difference = {name: (sampled[name] - closed[name]).detach() for name in sampled}
    assert all(within(values, 0.0) for values in difference.values())
    assert bool((difference["low"] == 0).all()) == upwards, "its prior depends on what is sampled later"
    assert not (difference["top"] == 0).all()


def test_a_parent_that_is_sampled_later_would_bias_the_closed_form():
    ladder = Ladder(upwards=True)
    weights = log_weights(ladder.model, ladder.guide, X, particles=40_000)
    site = weights.sites["low"]
    assert not site.ordered
    posterior, prior = site.posterior["fn"], site.prior["fn"]
    wrong = torch.distributions.kl_divergence(posterior, prior)
    assert not within((kl_terms(weights)["low"] - wrong).detach(), 0.0)


SCALES = {
    "plain": lambda program: program,
    "scaled": lambda program: poutine.scale(program, scale=0.3),
    "masked": lambda program, mask=torch.tensor([True, False, True]): poutine.mask(program, mask=mask),  # noqa: B008
}


@pytest.mark.parametrize(
    ("scale", "subsample"), [("plain", None), ("plain", 2), ("scaled", None), ("scaled", 2), ("masked", None)]
)
def test_it_is_that_of_pyro_on_the_same_seed(scale, subsample):
    ladder = Ladder(subsample=subsample)
    model, guide = SCALES[scale](ladder.model), SCALES[scale](ladder.guide)
    results = []
    for bound in (ELBO(analytic_kl=True), TraceMeanField_ELBO()):
        torch.manual_seed(0)
        loss = bound.differentiable_loss(model, guide, X)
        results.append((loss.detach(), *torch.autograd.grad(loss, list(ladder.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10)


def test_different_scales_stay_inside_the_terms():
    ladder = Ladder()

    def model(x):
        a, b, c, *_ = ladder.numbers
        with ladder.plate(x):
            with poutine.scale(scale=0.25):
                top = pyro.sample("top", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            low = pyro.sample("low", dist.Normal(a * top, b.exp()).to_event(1))
            pyro.sample("x", dist.Normal(c * low, 0.7).to_event(1), obs=x)

    def guide(x):
        _, _, _, d, e, f = ladder.numbers
        with ladder.plate(x):
            with poutine.scale(scale=0.25):
                top = pyro.sample("top", dist.Normal(d * x, 0.8).to_event(1))
            pyro.sample("low", dist.Normal(e * x + 0.5 * top, f.exp()).to_event(1))

    losses = []
    for bound in (ELBO(analytic_kl=True), TraceMeanField_ELBO()):
        torch.manual_seed(0)
        losses.append(bound.differentiable_loss(model, guide, X).detach())
    assert torch.allclose(*losses)


def test_the_closed_form_lowers_the_noise_where_the_posterior_is_far_from_the_true_one():
    ladder, spread = Ladder(), {}
    for analytic in (False, True):
        torch.manual_seed(1)
        bound = ELBO(analytic_kl=analytic)
        gradients = [
            torch.autograd.grad(bound.differentiable_loss(ladder.model, ladder.guide, X), ladder.numbers)[0]
            for _ in range(150)
        ]
        spread[analytic] = torch.stack(gradients).var(0).sum()
    assert spread[True] < 0.8 * spread[False]


@pytest.mark.parametrize("subsample", [None, 2])
def test_in_a_hierarchy_its_gradient_through_the_samples_is_the_whole_one(subsample):
    ladder, found = Ladder(subsample=subsample), []
    for gradient in ("total", "stl"):
        torch.manual_seed(0)
        loss = ELBO(3, analytic_kl=True, gradient=gradient).differentiable_loss(ladder.model, ladder.guide, X)
        found.append(torch.autograd.grad(loss, ladder.numbers)[0])
    assert torch.allclose(*found)


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("analytic", [False, True])
def test_it_mixes_with_discrete_variables(analytic, particles):
    """A bit with score-function gradients, and a normal that depends on it: the exact gradient is a sum of two."""
    numbers = torch.tensor([0.4, -0.7, 1.3, 0.6, -0.3], dtype=torch.float64, requires_grad=True)
    x = X[:, 0]

    def model(x):
        with pyro.plate("data", len(x)):
            bit = pyro.sample("bit", dist.Bernoulli(logits=numbers[0]))
            z = pyro.sample("z", dist.Normal(bit * numbers[2], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            bit = pyro.sample("bit", dist.Bernoulli(logits=numbers[1] * x))
            pyro.sample("z", dist.Normal(numbers[3] * x + 0.2 * bit, numbers[4].exp()))

    q_bit, exact = dist.Bernoulli(logits=numbers[1] * x), 0.0
    for bit in (0.0, 1.0):
        q, p = dist.Normal(numbers[3] * x + 0.2 * bit, numbers[4].exp()), dist.Normal(bit * numbers[2], 1.0)
        fit = dist.Normal(q.loc, 1.0).log_prob(x) - 0.5 * q.scale.square()
        state = torch.tensor(bit, dtype=torch.float64)
        log_q = q_bit.log_prob(state)
        log_p = dist.Bernoulli(logits=numbers[0]).log_prob(state)
        exact = exact + (log_q.exp() * (fit - torch.distributions.kl_divergence(q, p) + log_p - log_q)).sum()
    (expected,) = torch.autograd.grad(exact, numbers)
    bound, copies, values, gradients = ELBO(particles, analytic_kl=analytic), 400, [], []
    for _ in range(30):
        loss = -bound.differentiable_loss(model, guide, x.repeat(copies)) / copies
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, numbers)[0])
    assert within(torch.stack(values), exact.detach())
    assert within(torch.stack(gradients), expected)


@pytest.mark.parametrize("automatic", [AutoDelta, AutoNormal, AutoMultivariateNormal])
def test_automatic_guides_keep_their_sampled_terms(automatic):
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = automatic(model)
    weights = log_weights(model, guide)
    assert torch.equal(total(kl_terms(weights, analytic=True)), total(kl_terms(weights)))
    assert torch.allclose(-total(kl_terms(weights)), weights.log_w)


@pytest.mark.parametrize("analytic", [False, True])
def test_dimensions_add_up_to_their_site(analytic):
    ladder = Ladder()
    weights = log_weights(ladder.model, ladder.guide, X, particles=3)
    whole = kl_terms(weights, analytic=analytic)
    parts = kl_terms_by_dimension(weights, analytic=analytic)
    for name, term in whole.items():
        assert parts[name].shape == (3, 3, 2)
        assert torch.allclose(parts[name].sum(-1), term)


def test_dimensions_in_several_plates_and_events_and_masks():
    mask = torch.tensor([[True], [False], [True], [True]])

    def program(loc):
        with pyro.plate("rows", 4, dim=-2), pyro.plate("columns", 5, dim=-1), poutine.mask(mask=mask):
            pyro.sample("z", dist.Normal(torch.full((2, 3), loc), 1.0).to_event(2))

    weights = log_weights(lambda: program(0.0), lambda: program(2.0), particles=2)
    parts = kl_terms_by_dimension(weights, analytic=True)["z"]
    assert parts.shape == (2, 4, 5, 2, 3)
    assert torch.equal(parts[0, :, 0, 0, 0], torch.tensor([2.0, 0.0, 2.0, 2.0]))
    sampled = kl_terms_by_dimension(weights)["z"]
    assert torch.allclose(sampled.sum((-2, -1)), kl_terms(weights)["z"])


@pytest.mark.parametrize("which", ["flow posterior", "mixture prior"])
def test_dimensions_that_hang_together_have_no_terms_of_their_own(which):
    prior, head = NormalMixture(3, components=2), FlowPosterior(3, context=2)
    raw = torch.randn(4, *head.in_shape)
    normal = dist.Normal(torch.zeros(3), 1.0).to_event(1)

    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", prior() if which == "mixture prior" else normal)

    def guide():
        with pyro.plate("data", 4):
            pyro.sample("z", head(raw) if which == "flow posterior" else normal)

    weights = log_weights(model, guide)
    assert kl_terms(weights, analytic=True)["z"].shape == (1, 4), "the sampled term, as there is no closed form"
    with pytest.raises(ValueError, match=r"'z' have no KL terms of their own.*per=\"site\""):
        kl_terms_by_dimension(weights)


def test_a_global_variable_has_its_closed_form_once():
    x = torch.randn(6)

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(0.5, 1.0))

    weights = log_weights(model, guide, x, particles=3)
    assert torch.allclose(kl_terms(weights, analytic=True)["mean"], torch.full((3,), 0.125))
    assert math.isfinite(ELBO(3, analytic_kl=True).loss(model, guide, x))
