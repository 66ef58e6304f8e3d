# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Factor analysis against scikit-learn's; what it shares with PPCA is tested there."""

import numpy as np
import pytest
import torch
from sklearn import decomposition

from pyro_dgm.infer import ELBO
from pyro_dgm.models import PPCA, FactorAnalysis


def data(size=1000, scale=None):
    """Two factors, and noise of very different sizes."""
    generator = torch.Generator().manual_seed(2)
    draw = torch.randn(size, 10, generator=generator, dtype=torch.float64)
    loading = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    x = draw[:, :2] @ loading.mT + draw[:, 2:] * torch.linspace(0.5, 3.0, 8, dtype=torch.float64) + 2.0
    return x if scale is None else x * scale


def fitted(x, *, seed=0, sweeps=1000):
    model = FactorAnalysis(dim=8, latent=2).double()
    model.start(x, seed=seed)
    for _ in range(sweeps):
        model.maximize(model.statistics(x))
    return model


@pytest.fixture(scope="module")
def peer():
    return decomposition.FactorAnalysis(2, tol=1e-13, max_iter=20_000, svd_method="lapack").fit(data().numpy())


def test_with_the_parameters_of_scikit_learn_it_has_its_scores(peer):
    x, model = data(), FactorAnalysis(dim=8, latent=2).double()
    with torch.no_grad():
        model.loc.copy_(torch.from_numpy(peer.mean_))
        model.loading.copy_(torch.from_numpy(peer.components_.T))
        model.log_scale.copy_(0.5 * torch.from_numpy(np.log(peer.noise_variance_ - model.least.numpy())))
    assert np.allclose(model.log_prob(x).detach().numpy(), peer.score_samples(x.numpy()), atol=1e-9)
    assert np.allclose(model.posterior(x).mean.detach().numpy(), peer.transform(x.numpy()), atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_em_arrives_where_scikit_learn_does(peer, seed):
    x = data()
    model = fitted(x, seed=seed)
    assert model.log_prob(x).mean().item() == pytest.approx(peer.score(x.numpy()), abs=1e-6)
    assert model.log_prob(x).sum().item() == pytest.approx(peer.loglike_[-1], abs=1e-3)
    assert np.allclose(model.noise.detach().numpy(), peer.noise_variance_, atol=1e-3)
    assert np.allclose(model.covariance.detach().numpy(), peer.get_covariance(), atol=1e-3)


def test_gradients_arrive_there_too(peer):
    x, model = data(), FactorAnalysis(dim=8, latent=2).double()
    model.start(x, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        ELBO().loss_and_grads(model.model, model.guide, x)
        optimizer.step()
    assert model.log_prob(x).mean().item() == pytest.approx(peer.score(x.numpy()), abs=1e-6)


def test_units_do_not_matter():
    """Coordinates in other units give the same factors; PPCA's are pulled to the loud coordinate."""
    units = torch.tensor([1.0, 1, 1, 50, 1, 1, 1, 1], dtype=torch.float64)
    plain, scaled = fitted(data()), fitted(data(scale=units))
    assert torch.allclose(scaled.noise.sqrt(), plain.noise.sqrt() * units, rtol=1e-3)
    assert torch.allclose(scaled.covariance, plain.covariance * units.outer(units), rtol=1e-3, atol=1e-3)
    ppca = PPCA(dim=8, latent=2).double()
    ppca.maximum_likelihood(data(scale=units))
    assert ppca.loading[3].norm() > 0.99 * ppca.loading.norm()


def test_it_fits_no_worse_than_ppca():
    x, ppca = data(), PPCA(dim=8, latent=2).double()
    ppca.maximum_likelihood(x)
    assert fitted(x).log_prob(x).sum() > ppca.log_prob(x).sum() + 100
