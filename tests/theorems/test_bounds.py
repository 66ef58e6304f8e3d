# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the lectures prove of the evidence lower bound and of importance-weighted bounds, on exact models."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_dgm.infer import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Renyi, ReweightedWakeSleep, elbo, iwae
from tests.oracles import BernoulliLatent, LinearGaussian, not_above, within

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)
COPIES = 2000


def samples(bound, oracle, x):
    """Independent values of the bound, shape (copies, data)."""
    with torch.no_grad():
        return bound.per_datum(oracle.model, oracle.guide, x.repeat(COPIES, *[1] * (x.dim() - 1))).reshape(
            COPIES, len(x)
        )


def expectation(log_q, log_w, bound, particles):
    """E[bound] over all states of the particles of a finite latent variable."""
    total = torch.zeros(log_w.shape[1:], dtype=log_w.dtype)
    for states in itertools.product(range(len(log_w)), repeat=particles):
        index = torch.tensor(states)
        total = total + log_q[index].sum(0).exp() * bound(log_w[index])
    return total


def test_the_elbo_is_a_lower_bound_and_its_gap_is_the_divergence_to_the_posterior():
    """Jensen: L(q) <= log p(x), and log p(x) - L(q) = KL(q(z|x) || p(z|x)), whatever the number of particles."""
    oracle = LinearGaussian(widen=1.8)
    x = oracle.data(4)
    mean, covariance = oracle.posterior(x)
    gap = kl_divergence(
        dist.MultivariateNormal(mean, oracle.widen * covariance), dist.MultivariateNormal(mean, covariance)
    )
    for particles in (1, 5):
        assert within(samples(ELBO(particles), oracle, x), (oracle.log_prob(x) - gap).detach())
    assert (gap > 0.05).all()


def test_the_three_forms_of_the_elbo_are_one():
    """L = E[log p(x,z) - log q] = E[log p(x|z)] - KL(q || p(z)) = log p(x) - KL(q || p(z|x)) (a fourth: + entropy)."""
    oracle = BernoulliLatent()
    log_w, log_q = oracle.table(X)
    q, joint = log_q.exp(), log_w + log_q
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    log_prior = dist.Bernoulli(logits=oracle.prior_logit).log_prob(z)
    evidence = joint.logsumexp(0)
    first = (q * log_w).sum(0)
    second = (q * (joint - log_prior)).sum(0) - (q * (log_q - log_prior)).sum(0)
    third = evidence - (q * (log_q - (joint - evidence))).sum(0)
    fourth = (q * joint).sum(0) - (q * log_q).sum(0)
    for form in (second, third, fourth):
        assert torch.allclose(first, form, atol=1e-12)
    assert torch.allclose(first, expectation(log_q, log_w, elbo, 3), atol=1e-12)
    assert within(samples(ELBO(2), oracle, X), first.detach())


LOWER = {
    "CIWAE": lambda particles: CIWAE(particles, mix=0.3),
    "ELBO": ELBO,
    "IWAE": IWAE,
    "MIWAE": lambda particles: MIWAE(particles, groups=particles if particles < 50 else 10),
    "PIWAE": lambda particles: PIWAE(particles, groups=1),
    "Renyi": lambda particles: Renyi(particles, alpha=0.5),
    "Renyi, alpha 2": lambda particles: Renyi(particles, alpha=2),
    "ReweightedWakeSleep": ReweightedWakeSleep,
}


@pytest.mark.parametrize("particles", [1, 2, 5, 50])
@pytest.mark.parametrize("name", LOWER)
def test_lower_bounds_stay_below_log_p(name, particles):
    """In expectation no lower bound of any number of particles exceeds log p(x): of Gaussians, and of a bit."""
    for oracle, x in ((LinearGaussian(widen=1.8), LinearGaussian().data(4)), (BernoulliLatent(), X)):
        log_w_and_q = oracle.table(x) if isinstance(oracle, BernoulliLatent) else None
        exact = oracle.log_prob(x) if log_w_and_q is None else sum(log_w_and_q).logsumexp(0)
        assert not_above(samples(LOWER[name](particles), oracle, x), exact.detach())


def test_more_particles_are_never_looser():
    """Log p(x) >= L_K >= L_M for K >= M, exactly, by summing over all states."""
    oracle = BernoulliLatent()
    log_w, log_q = (part.detach() for part in oracle.table(X))
    evidence = (log_w + log_q).logsumexp(0)
    ladder = [expectation(log_q, log_w, iwae, particles) for particles in range(1, 9)]
    for looser, tighter in itertools.pairwise(ladder):
        assert (tighter > looser).all()
        assert (tighter < evidence).all()


def test_the_limit_of_many_particles_is_log_p():
    """Log p(x) = lim L_K if the weights are bounded, as those of a finite variable are; the gap falls as 1 / K."""
    oracle = BernoulliLatent()
    log_w, log_q = (part.detach() for part in oracle.table(X))
    evidence = (log_w + log_q).logsumexp(0)
    q, gaps = log_q[1].exp(), []
    for particles in (10, 100, 1000, 10_000):
        ones = torch.arange(particles + 1, dtype=torch.float64).unsqueeze(1)  # of K particles so many are one
        chance = dist.Binomial(particles, q).log_prob(ones).exp()
        value = ((particles - ones) * log_w[0].exp() + ones * log_w[1].exp()).log() - math.log(particles)
        gaps.append(evidence - (chance * value).sum(0))
    variance = (q * (1 - q)) * (log_w[1].exp() - log_w[0].exp()).square() / (2 * evidence).exp()
    assert torch.allclose(gaps[-1] * 10_000, variance / 2, rtol=1e-2)
    assert all((later < earlier / 9).all() for earlier, later in itertools.pairwise(gaps))


def reweighted(log_w, log_q, particles):
    """q_IW(z | z_2..K) for every state of z and of the others: values (S, S^(K-1), N), and the chance of the others."""
    states = list(itertools.product(range(len(log_w)), repeat=particles - 1))
    rows, chances = [], []
    for others in states:
        index = torch.tensor(others, dtype=torch.long)
        mean = torch.stack([iwae(torch.cat([log_w[z : z + 1], log_w[index]])) for z in range(len(log_w))])
        rows.append(log_w + log_q - mean)
        chances.append(log_q[index].sum(0).exp())
    return torch.stack(rows, 1), torch.stack(chances)


@pytest.mark.parametrize("particles", [2, 3, 5])
def test_the_reweighted_posterior_gives_the_importance_weighted_bound(particles):
    """E over z_2..K of L(q_IW(. | z_2..K)) is L_K; their mean q* is a distribution, and L(q*) >= L_K.

    The lecture says L(q*) = L_K. That holds with the mean outside L; the mean inside is tighter still, by convexity
    (Cremer, Morris & Duvenaud 2017, arXiv:1704.02916, sections 3 and 4).
    """
    oracle = BernoulliLatent()
    log_w, log_q = (part.detach() for part in oracle.table(X))
    joint = log_w + log_q
    log_iw, chance = reweighted(log_w, log_q, particles)
    exact = expectation(log_q, log_w, iwae, particles)
    outside = (chance * (log_iw.exp() * (joint.unsqueeze(1) - log_iw)).sum(0)).sum(0)
    assert torch.allclose(outside, exact, atol=1e-10)
    mean = (chance * log_iw.exp()).sum(1)
    assert torch.allclose(mean.sum(0), torch.ones(3, dtype=torch.float64), atol=1e-10)
    inside = (mean * (joint - mean.log())).sum(0)
    assert (inside > exact).all()
    assert (inside < joint.logsumexp(0)).all()


def test_a_bound_is_tight_at_the_posterior_only():
    """L(q) = log p(x) exactly where q is the posterior; then every weight is p(x), for every K and every bound."""
    tight, loose = LinearGaussian(), LinearGaussian(widen=1.3)
    x = tight.data(3)
    exact = tight.log_prob(x)
    for make in LOWER.values():
        assert torch.allclose(make(5).per_datum(tight.model, tight.guide, x), exact, atol=1e-9)
        assert not torch.allclose(make(5).per_datum(loose.model, loose.guide, x), exact, atol=1e-3)
