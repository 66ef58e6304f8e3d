# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""PPCA, the lecture's first latent variable model: three ways to one maximum, and what a linear VAE makes of it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_dgm.infer import ELBO
from pyro_dgm.models import PPCA, FactorAnalysis

DIM, LATENT = 6, 2


def data(size=400):
    """Two strong directions, four weak ones, and a mean."""
    generator = torch.Generator().manual_seed(4)
    draw = torch.randn(size, DIM, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q
    scales = torch.tensor([3.0, 2.0, 0.7, 0.6, 0.5, 0.4], dtype=torch.float64)
    return draw * scales @ turn.mT + 1.5


def ppca(x=None, *, seed=0):
    torch.manual_seed(seed)
    model = PPCA(dim=DIM, latent=LATENT).double()
    if x is not None:
        model.maximum_likelihood(x)
    return model


def largest_angle(loading, x):
    """The largest angle between the columns' span and the principal subspace of the data, in radians."""
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:LATENT]
    found = torch.linalg.qr(loading.detach()).Q
    cosines, sines = torch.linalg.svdvals(axes @ found), torch.linalg.svdvals(found - axes.mT @ axes @ found)
    return torch.atan2(sines[0], cosines[-1])


def sweeps(model, x, number):
    """The log-likelihood before each sweep of EM."""
    found = []
    for _ in range(number):
        statistics = model.statistics(x)
        found.append(float(statistics["log_likelihood"]))
        model.maximize(statistics)
    return found


def test_the_marginal_is_normal():
    """If p(z) = N(0, I) and p(x | z) = N(Wz + mu, s^2 I), then p(x) = N(mu, W W^T + s^2 I)."""
    model, x = ppca(), data(20)
    nodes = torch.cartesian_prod(*[torch.linspace(-9, 9, 181, dtype=torch.float64)] * LATENT)
    log_joint = (
        dist.Normal(0.0, 1.0).log_prob(nodes).sum(-1)
        + dist.Normal((nodes @ model.loading.mT + model.loc).unsqueeze(1), model.noise.sqrt()).log_prob(x).sum(-1).mT
    )
    by_quadrature = log_joint.logsumexp(-1) + 2 * math.log(0.1)
    exact = dist.MultivariateNormal(model.loc, model.loading @ model.loading.mT + model.noise.diag()).log_prob(x)
    assert torch.allclose(by_quadrature, exact, rtol=1e-8)
    assert torch.allclose(model.log_prob(x), exact, rtol=1e-10)


def test_the_posterior_is_normal():
    """p(z | x) = N(M^-1 W^T (x - mu), s^2 M^-1) with M = W^T W + s^2 I (the lecture's M has the product turned)."""
    model, x = ppca(), data(20)
    m = model.loading.mT @ model.loading + model.noise[0] * torch.eye(LATENT, dtype=torch.float64)
    posterior = model.posterior(x)
    assert torch.allclose(posterior.mean, (x - model.loc) @ model.loading @ torch.linalg.inv(m))
    assert torch.allclose(posterior.covariance_matrix[0], model.noise[0] * torch.linalg.inv(m))


def test_the_maximum_spans_the_principal_subspace():
    """PCA keeps the directions of largest variance; they span the columns of W at the maximum of the likelihood."""
    x = data()
    model = ppca(x)
    assert largest_angle(model.loading, x) < 1e-12
    loss = -model.log_prob(x).sum()
    for slope in torch.autograd.grad(loss, list(model.parameters())):
        assert torch.allclose(slope, torch.zeros_like(slope), atol=1e-8)


@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 2.0))
def test_nothing_is_likelier_than_the_closed_form(seed, size):
    """W = U (L - s^2)^(1/2), with s^2 the mean of the variances left out, is a global maximum."""
    x = data(50)
    model, best = ppca(), float(ppca(x).log_prob(x).sum().detach())
    model.maximum_likelihood(x)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(size * noise)
        assert model.log_prob(x).sum() <= best


@given(seed=st.integers(0, 10_000), size=st.integers(1, 30), family=st.sampled_from([PPCA, FactorAnalysis]))
def test_em_never_lowers_the_likelihood(seed, size, family):
    """A sweep of EM raises the bound in q to the likelihood and then in theta, so the likelihood never falls."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(size, DIM, generator=generator, dtype=torch.float64) + 10
    torch.manual_seed(seed)
    model = family(dim=DIM, latent=LATENT, floor=0.01).double()
    found = torch.tensor(sweeps(model, x, 15), dtype=torch.float64)
    assert (found.diff() >= -1e-9 * found[1:].abs().clamp(min=1.0)).all()


def test_em_of_ppca_is_that_of_tipping_and_bishop():
    """W' = S W (s^2 I + M^-1 W^T S W)^-1 and s'^2 = tr(S - S W M^-1 W'^T) / D, with S the covariance of the data."""
    x = data()
    centred = x - x.mean(0)
    s, model = centred.mT @ centred / len(x), ppca()
    with torch.no_grad():
        model.loc.copy_(x.mean(0))
    for _ in range(5):
        w, noise = model.loading.detach().clone(), model.noise[0].detach().clone()
        inverse = torch.linalg.inv(w.mT @ w + noise * torch.eye(LATENT, dtype=torch.float64))
        new = s @ w @ torch.linalg.inv(noise * torch.eye(LATENT, dtype=torch.float64) + inverse @ w.mT @ s @ w)
        model.maximize(model.statistics(x))
        assert torch.allclose(model.loading, new, rtol=1e-10)
        assert torch.allclose(model.noise[0], (s - s @ w @ inverse @ new.mT).trace() / DIM, rtol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_em_finds_the_maximum(seed):
    """From random loadings EM converges to the principal subspace and to the closed form's likelihood."""
    x, model = data(), ppca(seed=seed)
    found = sweeps(model, x, 250)
    assert found[-1] == pytest.approx(ppca(x).log_prob(x).sum().item(), abs=1e-7)
    assert largest_angle(model.loading, x) < 1e-6


def test_gradients_of_the_elbo_find_the_maximum():
    """With the exact posterior as q the ELBO is the likelihood, and to climb it leads to the same maximum."""
    x, model = data(), ppca()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        ELBO().loss_and_grads(model.model, model.guide, x)
        optimizer.step()
    assert -ELBO().loss(model.model, model.guide, x).item() == pytest.approx(ppca(x).log_prob(x).sum().item(), abs=1e-5)
    assert largest_angle(model.loading, x) < 1e-4


class LinearVAE(nn.Module):
    """PPCA with q(z | x) = N(V (x - mu), diag(t^2)): a VAE with linear networks and a learned variance of x."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ppca = PPCA(dim=DIM, latent=LATENT).double()
        self.encoder = nn.Parameter(0.1 * torch.randn(LATENT, DIM, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.zeros(LATENT, dtype=torch.float64))

    def model(self, x):
        return self.ppca.model(x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            mean = (x - self.ppca.loc) @ self.encoder.mT
            pyro.sample("z", dist.Normal(mean, self.log_scale.exp()).to_event(1))

    def best_guide(self):
        """The best q for the model: the exact mean, and the precisions of the exact posterior."""
        w, noise = self.ppca.loading, self.ppca.noise[0]
        m = w.mT @ w + noise * torch.eye(LATENT, dtype=torch.float64)
        with torch.no_grad():
            self.encoder.copy_(torch.linalg.inv(m) @ w.mT)
            self.log_scale.copy_(0.5 * (noise / m.diagonal()).log())
        return m.detach() / noise.detach()

    def exact_bound(self, x):
        """The ELBO without chance: log p(x) less the divergence of q from the posterior, which is normal too."""
        posterior = self.ppca.posterior(x)
        q = dist.MultivariateNormal(
            (x - self.ppca.loc) @ self.encoder.mT, scale_tril=self.log_scale.exp().diag().expand(len(x), -1, -1)
        )
        return self.ppca.log_prob(x) - torch.distributions.kl_divergence(q, posterior)


def test_the_elbo_of_a_linear_vae_is_the_likelihood_less_the_divergence():
    """Log p(x) = L(q) + KL(q(z | x) || p(z | x)), here with all three in closed form."""
    vae, x = LinearVAE(), data(30)
    torch.manual_seed(1)
    found = torch.stack([ELBO(500).per_datum(vae.model, vae.guide, x).mean() for _ in range(20)]).detach()
    error = found.std() / math.sqrt(20)
    assert (found.mean() - vae.exact_bound(x).mean()).abs() < 5 * error


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4])
def test_the_gap_of_a_linear_vae_is_zero_where_the_axes_are_principal(angle):
    """Turning W to W R leaves the likelihood as it is, but costs a diagonal q the correlations of the posterior.

    The bound then is short of it by half the log of the product of M's diagonal over M's determinant.
    Source: Lucas et al. (2019), arXiv:1911.02469, section 4.
    """
    vae, x = LinearVAE(), data()
    vae.ppca.maximum_likelihood(x)
    best = vae.ppca.log_prob(x).mean()
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    with torch.no_grad():
        vae.ppca.loading.copy_(vae.ppca.loading @ turn)
    m = vae.best_guide()
    gap = 0.5 * (m.diagonal().log().sum() - m.logdet())
    assert torch.allclose(vae.ppca.log_prob(x).mean(), best)
    assert torch.allclose(best - vae.exact_bound(x).mean(), gap, atol=1e-10)
    assert gap.abs() < 1e-10 if angle == 0 else gap > 0.01


def test_a_linear_vae_finds_the_principal_subspace_and_closes_its_gap():
    """At every maximum of a linear VAE's ELBO the columns of W are the principal axes and q is the exact posterior.

    Source: Lucas et al. (2019), arXiv:1911.02469, theorem 1 and corollary 1.
    """
    vae, x = LinearVAE(), data()
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    bound = ELBO(analytic_kl=True)
    for _ in range(500):
        optimizer.zero_grad()
        bound.loss_and_grads(vae.model, vae.guide, x)
        optimizer.step()
        schedule.step()
    likelihood, best = vae.ppca.log_prob(x).mean().item(), ppca(x).log_prob(x).mean().item()
    assert largest_angle(vae.ppca.loading, x) < 0.02
    assert likelihood == pytest.approx(best, abs=0.002)
    assert 0 <= likelihood - vae.exact_bound(x).mean().item() < 0.002
    columns = vae.ppca.loading.detach()
    assert (columns[:, 0] @ columns[:, 1]).abs() < 0.02 * columns[:, 0].norm() * columns[:, 1].norm()
