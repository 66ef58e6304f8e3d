# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What each method of inference loses is its divergence from the exact posterior, in mixtures small enough to sum."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from pyro.ops.stats import effective_sample_size
from torch.distributions import Dirichlet, Gamma, StudentT, kl_divergence

from pyro_dgm.infer import CoordinateAscent
from pyro_dgm.infer.no_u_turn import nuts
from pyro_dgm.models import BayesianMixture, MarginalMixture
from pyro_dgm.train import compare_mixtures

X = torch.tensor([-2.1, -1.3, 0.4, 1.0, 2.6], dtype=torch.float64)
K, ALPHA, BETA, DOF, SCATTER, MEAN = 2, 0.8, 0.5, 3.0, 1.5, 0.2


def weighed(z):
    """The conjugate posterior of weights, means and precisions given all assignments, and log p(X, z)."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(z), K).double()
    counts = one_hot.sum(0)
    means = one_hot.T @ X / counts.clamp_min(1)
    spread = (one_hot * (X[:, None] - means).square()).sum(0)
    beta, dof = BETA + counts, DOF + counts
    scatter = SCATTER + spread + BETA * counts / beta * (means - MEAN).square()
    loc = (BETA * MEAN + counts * means) / beta
    log_p = math.lgamma(K * ALPHA) - math.lgamma(K * ALPHA + len(X))
    log_p = log_p + (torch.lgamma(ALPHA + counts) - math.lgamma(ALPHA)).sum()
    cluster = 0.5 * (BETA / beta).log() + torch.lgamma(dof / 2) - math.lgamma(DOF / 2)
    cluster = cluster + DOF / 2 * math.log(SCATTER) - dof / 2 * scatter.log() - counts / 2 * math.log(math.pi)
    return log_p + cluster.sum(), (ALPHA + counts, loc, beta, dof, scatter)


ALL = list(itertools.product(range(K), repeat=len(X)))
WEIGHED = [weighed(z) for z in ALL]
LOG_JOINT = torch.stack([log_p for log_p, _ in WEIGHED])
EVIDENCE = LOG_JOINT.logsumexp(0)


def divergence(q, p):
    """KL between two beliefs about weights, means and precisions: Dirichlet, and a normal-gamma per component."""
    (alpha, loc, beta, dof, scatter), (alpha2, loc2, beta2, dof2, scatter2) = q, p
    weights = kl_divergence(Dirichlet(alpha), Dirichlet(alpha2))
    precisions = kl_divergence(Gamma(dof / 2, scatter / 2), Gamma(dof2 / 2, scatter2 / 2))
    means = 0.5 * (beta2 / beta - 1 - (beta2 / beta).log() + beta2 * (loc - loc2).square() * dof / scatter)
    return weights + (precisions + means).sum()


def mean_field():
    model = BayesianMixture(
        dim=1,
        components=K,
        concentration=ALPHA,
        mean_precision=BETA,
        dof=DOF,
        prior_loc=torch.tensor([MEAN]).double(),
        prior_scatter=torch.tensor([[SCATTER]]).double(),
    ).double()
    model.start(X[:, None])
    return model


@torch.no_grad()
def test_the_gap_of_mean_field_is_its_divergence_from_the_posterior_of_everything():
    """Log p(X) = L(q) + KL(q(T) || p(T | X)), with T = (Z, theta) and q(T) = q(Z) q(theta), at every sweep."""
    model = mean_field()
    step, gaps = CoordinateAscent(model), []
    for _ in range(6):
        r, nw = model.responsibilities(X[:, None]), model.posterior
        q = (model.concentration, nw.loc[:, 0], nw.mean_precision, nw.dof, nw.scatter_tril[:, 0, 0].square())
        log_q = torch.stack([r[range(len(X)), z].log().sum() for z in ALL])
        of_theta = torch.stack([divergence(q, p) for _, p in WEIGHED])
        kl = (log_q.exp() * (log_q - (LOG_JOINT - EVIDENCE) + of_theta)).sum()
        bound = model.coordinate_statistics(X[:, None])["bound"] + model.global_bound()
        assert (EVIDENCE - bound).item() == pytest.approx(kl.item(), abs=1e-8)
        gaps.append(kl.item())
        step(X[:, None])
        step.epoch_end()
    assert gaps[-1] < gaps[0]
    assert min(gaps) > 0.05, "assignments and parameters depend on each other, and q denies it"


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, dtype=torch.float64, generator=generator) + 2 * torch.arange(40)[:, None].remainder(2)
    methods = ["em", "svi", "amortised", "k_means"]
    folder = tmp_path_factory.mktemp("gap")
    return x, compare_mixtures(x, x, folder=folder, methods=methods, components=2, sweeps=5, batch_size=20)


@pytest.mark.parametrize("method", ["em", "svi", "amortised", "k_means"])
def test_the_gap_of_assignments_is_their_divergence_from_the_posterior(method, fits):
    """Log p(x | theta) - L(q, theta) = KL(q(z) || p(z | x, theta)): zero for EM, whose E-step is the posterior."""
    x, fit = fits[0], fits[1][method]
    parts = [dist.MultivariateNormal(fit.means[k], fit.covariances[k]).log_prob(x) for k in range(2)]
    log_joint = torch.stack(parts, -1) + fit.weights.log()
    log_posterior = log_joint.log_softmax(-1)
    q = fit.responsibilities
    kl = (q * (q.clamp_min(1e-300).log() - log_posterior)).sum(-1).mean()
    elbo = (q * (log_joint - q.clamp_min(1e-300).log())).sum(-1).mean()
    assert fit.gap == pytest.approx(kl.item(), abs=1e-9)
    assert (log_joint.logsumexp(-1).mean() - elbo).item() == pytest.approx(kl.item(), abs=1e-9)
    assert fit.curve.objectives[-1] == pytest.approx(elbo.item(), abs=1e-9)
    assert (kl.item() < 1e-12) == (method in {"em", "svi"})


@pytest.mark.slow
def test_draws_have_no_gap_but_their_noise():
    """A chain's law is the posterior, whatever its shape: its predictive density is the exact one of all assignments.

    Five standard errors, with the chain's own effective sample size.
    """
    mean, scale = torch.tensor([MEAN]).double(), torch.tensor([[1 / SCATTER]]).double()
    model = MarginalMixture(
        components=K, mean=mean, scale=scale, dof=DOF, concentration=ALPHA, mean_precision=BETA
    ).double()
    points = torch.tensor([-1.5, 0.5, 3.0]).double()
    draws = nuts(model.model, X[:, None], samples=150, warmup=100, max_tree_depth=4, seed=0).draws
    found = model.log_prob(points[:, None], draws).exp()  # (S, 3)
    shares = (LOG_JOINT - EVIDENCE).exp()
    exact = torch.zeros(3).double()
    for share, (_, (alpha, loc, beta, dof, scatter)) in zip(shares, WEIGHED, strict=True):
        spread = (scatter * (1 + beta) / (beta * dof)).sqrt()
        parts = StudentT(dof, loc, spread).log_prob(points[:, None]).exp()  # (3, K)
        exact += share * (parts * alpha / alpha.sum()).sum(-1)
    size = effective_sample_size(found[None], sample_dim=1, chain_dim=0).clamp_max(150)
    assert (found.mean(0) - exact).abs().lt(5 * found.std(0) / size.sqrt()).all()
    assert (5 * found.std(0) / size.sqrt() < exact).all(), "or the test would see nothing"
