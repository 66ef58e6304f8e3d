# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the lectures say of EM, k-means and mixtures of normals, on small data and exactly."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pyro_dgm.infer import ELBO, EM, em
from pyro_dgm.models import BernoulliMixture, GaussianMixture, GaussianMixturePrior, KMeans
from tests.cases import COVARIANCES, MIXTURES


def data(size=40, *, seed=0, dim=2):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    return draw + 2 * torch.randn(3, dim, generator=generator, dtype=torch.float64)[torch.arange(size) % 3]


def of(model, x):
    return (x > 0).long().repeat(1, 3).reshape(-1, 3, 2) if isinstance(model, BernoulliMixture) else x


def lower_bound(model, x, q):
    """L(q, theta) = E_q[log p(x, z | theta)] - E_q[log q] for a table q(z), summed over data."""
    return (q * model.log_joint(x)).sum() - torch.special.xlogy(q, q).sum()


@pytest.mark.parametrize("name", MIXTURES)
def test_em_is_coordinate_ascent_on_the_elbo(name):
    """Mean field with q(theta) a delta: the E-step q(z) = p(z | x, theta*) maximises L over q, the M-step over theta.

    So log p(x | theta_t) = L(q_t, theta_t) <= L(q_t, theta_t+1) <= log p(x | theta_t+1), with the log-prior added.
    """
    model = MIXTURES[name]().double()
    x = of(model, data())
    model.start(x)
    with torch.no_grad():
        for _ in range(4):
            q, log_p = model.responsibilities(x), model.log_prob(x).sum()
            assert lower_bound(model, x, q).item() == pytest.approx(log_p.item(), rel=1e-9)  # the gap is closed
            for mix in (0.01, 0.5, 1.0):  # no other q is better
                other = torch.lerp(q, torch.rand_like(q).softmax(1), mix)
                assert lower_bound(model, x, other) < log_p
            before = lower_bound(model, x, q) + model.log_prior()
            model.maximize(model.statistics(x))
            after = lower_bound(model, x, q) + model.log_prior()
            best = {key: value.clone() for key, value in model.state_dict().items()}
            assert after >= before - 1e-9
            for _ in range(20):  # no theta near by is better
                for parameter in model.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
                assert lower_bound(model, x, q) + model.log_prior() <= after + 1e-9
                model.load_state_dict(best)
            assert model.log_prob(x).sum() + model.log_prior() >= after - 1e-9


def test_the_m_step_is_the_ascent_that_the_programs_elbo_sees():
    """The same bound, by the house's ELBO of the program with a guide that is frozen at the old posterior."""
    x = data()
    model = GaussianMixture(dim=2, components=3, ridge=0).double()
    model.start(x)
    q = model.responsibilities(x).detach()

    def frozen(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(q.repeat(len(x) // len(q), 1)))

    def bound(copies=3000):
        values = ELBO().per_datum(model.model, frozen, x.repeat(copies, 1)).reshape(copies, -1).sum(1).detach()
        return values.mean().item(), values.std().item() / math.sqrt(copies)

    before, _ = bound()
    assert before == pytest.approx(model.log_prob(x).sum().item(), rel=1e-9)  # one sample is exact at the posterior
    model.maximize(model.statistics(x))
    after, error = bound()
    assert abs(after - lower_bound(model, x, q).item()) < 5 * error + 1e-9
    assert after > before


@given(
    st.integers(12, 80),
    st.integers(1, 4),
    st.sampled_from(COVARIANCES),
    st.booleans(),
    st.integers(0, 10_000),
)
def test_em_never_lowers_the_likelihood(size, components, covariance, prior, seed):
    """EM guarantees a monotonic decrease in the negative log-likelihood (with a prior: of the posterior)."""
    x = data(size, seed=seed)
    options = {"prior": GaussianMixturePrior(concentration=1.5)} if prior else {"ridge": 0}
    model = GaussianMixture(dim=2, components=components, covariance=covariance, **options).double()
    step = EM(model)
    try:
        model.start(x, seed=seed)
        for _ in range(12):
            step(x)
            step.epoch_end()
    except ValueError as collapse:  # a component on a single datum: what came before counts
        assert not prior  # noqa: PT017
        assert "singular covariance" in str(collapse) or "is singular" in str(collapse)  # noqa: PT017
    assume(step.history.sweeps >= 1)
    assert step.history.monotone, step.history.why


@given(st.integers(1, 30), st.integers(1, 5), st.sampled_from([(1, 1), (2, 2), (1, 3.5)]), st.integers(0, 10_000))
def test_em_never_lowers_the_likelihood_of_coins(size, components, prior, seed):
    """The same for a mixture of Bernoullis."""
    x = (data(size, seed=seed, dim=5) > 0).long()
    model = BernoulliMixture(shape=(5,), components=components, prior=prior).double()
    history = em(model, x, seed=seed, sweeps=12, tolerance=0)
    assert history.monotone, history.why
    assert math.isfinite(history.objectives[-1])


def test_k_means_is_the_limit_of_small_variance():
    """K-means is a mixture of normals with hard assignments.

    As the variance falls, responsibilities become those of the nearest centre, one sweep of EM becomes Lloyd's, and
    variance * log p(x) becomes half the negative squared distance.
    """
    x = data()
    hard = KMeans(dim=2, components=3, variance=0).double()
    hard.start(x)
    errors = []
    for variance in (1.0, 0.1, 0.01, 1e-4, 1e-6):
        soft = KMeans(dim=2, components=3, variance=variance).double()
        soft.load_state_dict(hard.state_dict())
        with torch.no_grad():
            gap = (variance * soft.log_prob(x).sum() + 0.5 * hard.inertia(x)).abs().item()
            shares = (soft.responsibilities(x) - hard.responsibilities(x)).abs().max().item()
        em(soft, x, sweeps=1, tolerance=0, seed=None)
        lloyd = KMeans(dim=2, components=3, variance=0).double()
        lloyd.load_state_dict(hard.state_dict())
        em(lloyd, x, sweeps=1, tolerance=0, seed=None)
        errors.append((gap, shares, (soft.loc - lloyd.loc).abs().max().item()))
    for kind in range(3):
        values = [error[kind] for error in errors]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 2e-3


def test_a_gaussian_mixture_of_equal_spheres_is_soft_k_means():
    """K-means' model is the mixture of normals with equal weights and one fixed variance."""
    x = data()
    soft = KMeans(dim=2, components=3, variance=0.7).double()
    soft.start(x)
    mixture = GaussianMixture(dim=2, components=3, covariance="spherical").double()
    with torch.no_grad():
        mixture.loc.copy_(soft.loc)
        mixture.raw_covariance.fill_(0.5 * math.log(0.7))
    assert torch.allclose(mixture.log_prob(x), soft.log_prob(x))
    assert torch.allclose(mixture.responsibilities(x), soft.responsibilities(x))


def test_online_em_converges_to_a_stationary_point_of_the_likelihood():
    """Cappe & Moulines: with steps t^-kappa online EM converges to where the gradient of the likelihood is zero."""
    x = data(600)
    model = GaussianMixture(dim=2, components=3, covariance="diagonal", ridge=0).double()
    model.start(x)
    best = em(model, x, sweeps=2000, tolerance=1e-12).objectives[-1]
    model.start(x)
    start = model.log_prob(x).mean().item()
    step = EM(model, online=(2, 0.7), hold=5)
    generator = torch.Generator().manual_seed(0)
    gaps = []
    for epoch in range(60):
        for batch in x[torch.randperm(600, generator=generator)].split(50):
            step(batch)
        step.epoch_end()
        if epoch in (0, 9, 59):
            gaps.append(best - model.log_prob(x).mean().item())
    gradients = torch.autograd.grad(model.log_prob(x).mean(), list(model.parameters()))
    assert gaps[0] > gaps[2]
    assert abs(gaps[2]) < 0.05 * (best - start)
    assert max(gradient.abs().max().item() for gradient in gradients) < 0.01
