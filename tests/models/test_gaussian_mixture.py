# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The mixture of normals under EM, beside scikit-learn, and where data are too few, too many, or too far away."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_dgm.infer import EM, em
from pyro_dgm.models import GaussianMixture, GaussianMixturePrior, KMeans
from pyro_dgm.models.start_centers import start_centers
from tests.cases import COVARIANCES, GAUSSIAN_MIXTURES

PEER_NAMES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
KINDS = pytest.mark.parametrize("covariance", COVARIANCES)


def three(dim=3, size=150):
    generator = torch.Generator().manual_seed(4)
    parts = []
    for _ in range(3):
        bend, place = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (dim, 1))
        parts.append(torch.randn(size, dim, generator=generator, dtype=torch.float64) @ bend + 3 * place)
    return torch.cat(parts)


def peer(model, x, sweeps):
    """scikit-learn's mixture from the same start after so many sweeps, and its mean log-likelihood at each."""
    covariances = model.covariances.detach().numpy()
    found = Peer(
        model.components,
        covariance_type=PEER_NAMES[model.covariance],
        reg_covar=model.ridge,
        weights_init=model.weights.detach().numpy().copy(),
        means_init=model.loc.detach().numpy().copy(),
        precisions_init=np.linalg.inv(covariances) if model.covariance in ("full", "tied") else 1 / covariances,
        init_params="random_from_data",
        max_iter=sweeps,
        tol=0,
    )
    with pytest.warns(ConvergenceWarning):
        found.fit(x.numpy())
    return found


@KINDS
@pytest.mark.parametrize("ridge", [0, 1e-6, 0.1])
def test_every_sweep_is_that_of_scikit_learn(covariance, ridge):
    x = three()
    model = GaussianMixture(dim=3, components=4, covariance=covariance, ridge=ridge).double()
    model.start(x)
    other = peer(model, x, 60)
    step = EM(model)
    for _ in range(60):
        step(x)
        step.epoch_end()
    assert len(other.lower_bounds_) == 60
    assert np.allclose(step.history.objectives, other.lower_bounds_, rtol=0, atol=1e-8)
    assert model.log_prob(x).mean().item() == pytest.approx(other.score(x.numpy()), abs=1e-8)
    assert np.allclose(model.covariances.detach().numpy(), other.covariances_, atol=1e-5)
    assert np.allclose(model.responsibilities(x).detach().numpy(), other.predict_proba(x.numpy()), atol=1e-5)


@pytest.mark.parametrize("name", GAUSSIAN_MIXTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_recovers_the_clouds_on_any_device_in_any_precision(name, dtype, device):
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    x = (places.repeat_interleave(200, 0) + torch.randn(600, 2, generator=generator)).to(device, dtype)
    model = GAUSSIAN_MIXTURES[name]().to(device, dtype)
    history = em(model, x)
    assert history.converged
    assert history.monotone, history.why
    assert model.loc.dtype == dtype
    assert model.loc.device == x.device
    found = model.loc[model.loc.sum(1).argsort()].detach().cpu().double()
    assert ((torch.cdist(places.double(), found) < 0.4).sum(0) == 1).all()
    assert torch.allclose(model.weights, torch.full((3,), 1 / 3).to(x), atol=0.01)
    assert torch.allclose(model.responsibilities(x).sum(1), torch.ones(600).to(x), atol=1e-5)


@pytest.mark.parametrize("name", GAUSSIAN_MIXTURES)
def test_far_and_narrow_clouds_are_as_accurate_as_near_ones(name):
    """In float32 too, where the fast formula would lose all digits."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    noise = torch.randn(600, 2, generator=generator, dtype=torch.float64)
    x = (places.repeat_interleave(200, 0) + 1e-3 * noise).float()
    model = GAUSSIAN_MIXTURES[name]()
    em(model, x, sweeps=30)
    exact = GAUSSIAN_MIXTURES[name]().double()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(model.log_prob(x).double(), exact.log_prob(x.double()), atol=0.02)
    assert model.statistics(x)["log_likelihood"].item() == pytest.approx(
        exact.statistics(x.double())["log_likelihood"].item(), abs=0.02 * 600
    )
    exact.maximize(exact.statistics(x.double()))
    model.maximize(model.statistics(x))
    assert (model.covariances - exact.covariances).abs().max() < 0.01 * exact.covariances.max()
    assert torch.allclose(model.loc.double(), exact.loc, atol=1e-5)


@KINDS
def test_a_single_component_is_the_mean_and_the_covariance(covariance):
    x = three()
    model = GaussianMixture(dim=3, components=1, covariance=covariance, ridge=0).double()
    em(model, x, sweeps=2)
    full = torch.from_numpy(np.cov(x.numpy().T, bias=True))
    expected = {
        "full": full[None],
        "tied": full,
        "diagonal": full.diagonal()[None],
        "spherical": full.diagonal().mean()[None],
    }
    assert torch.allclose(model.loc[0], x.mean(0))
    assert torch.allclose(model.covariances, expected[covariance])


@pytest.mark.parametrize("covariance", ["full", "diagonal", "spherical"])
def test_a_component_without_data_stays_as_it_is(covariance):
    x = three()
    model = GaussianMixture(dim=3, components=2, covariance=covariance, ridge=0).double()
    model.start(x)
    with torch.no_grad():
        model.loc[1] += 1e4
    before = model.loc[1].clone(), model.covariances[1].clone()
    history = em(model, x, sweeps=3, seed=None)
    assert history.monotone
    assert torch.equal(model.loc[1], before[0])
    assert torch.allclose(model.covariances[1], before[1])
    assert 0 < model.weights[1] < 1e-15
    assert model.log_prob(x).isfinite().all()
    assert torch.allclose(model.loc[0], x.mean(0))


@KINDS
def test_more_components_than_data(covariance):
    x = three()[:4]
    for options in ({}, {"prior": GaussianMixturePrior()}):
        model = GaussianMixture(dim=3, components=6, covariance=covariance, **options).double()
        history = em(model, x, sweeps=20)
        assert model.log_prob(x).isfinite().all()
        assert math.isfinite(history.objectives[-1])
    model = GaussianMixture(dim=3, components=6, covariance=covariance, ridge=0).double()
    if covariance in ("diagonal", "spherical"):
        with pytest.raises(ValueError, match="component . has a singular covariance"):
            em(model, x)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_fewer_data_than_dimensions(covariance):
    x = torch.randn(5, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="singular.*in 8 dimensions. Use a larger ridge, prior="):
        em(GaussianMixture(dim=8, components=2, covariance=covariance, ridge=0).double(), x)
    for options in ({"ridge": 1e-2}, {"prior": GaussianMixturePrior(scale=0.5)}):
        model = GaussianMixture(dim=8, components=2, covariance=covariance, **options).double()
        em(model, x)
        assert model.log_prob(x).isfinite().all()
    for kind in ("diagonal", "spherical"):
        em(GaussianMixture(dim=8, components=1, covariance=kind, ridge=0).double(), x)


def test_a_collapse_names_its_component_and_leaves_the_parameters():
    x = three()
    model = GaussianMixture(dim=3, components=3, ridge=0).double()
    model.start(x)
    with torch.no_grad():
        model.loc[1] = x[0]
        model.raw_covariance[1] = -12 * torch.eye(3)
    before = model.loc.clone()
    with pytest.raises(ValueError, match="component 1 has a singular covariance: it holds 1 of 450 data"):
        em(model, x, seed=None)
    assert torch.equal(model.loc, before)


@KINDS
def test_a_prior_keeps_components_from_collapsing(covariance):
    x = three()
    model = GaussianMixture(dim=3, components=3, covariance=covariance, prior=GaussianMixturePrior()).double()
    model.start(x)
    with torch.no_grad():
        model.loc[1] = x[0]
        model.raw_covariance *= 2
    history = em(model, x, sweeps=300, seed=None)
    assert history.monotone, history.why
    scatter = model.covariances if covariance in ("full", "tied") else torch.diag_embed(model.covariances[..., None])
    assert torch.linalg.eigvalsh(scatter).min() > 1e-2


@KINDS
def test_the_prior_is_an_inverse_wishart(covariance):
    prior = GaussianMixturePrior(concentration=1.7, dof=5.5, scale=0.3)
    model = GaussianMixture(dim=2, components=3, covariance=covariance, prior=prior).double()
    with torch.no_grad():
        model.raw_covariance.normal_()
        model.logits.normal_()
    found, expected = model.covariances.detach().numpy(), 0.0
    if covariance in ("full", "tied"):
        for matrix in found.reshape(-1, 2, 2):
            expected += stats.invwishart.logpdf(matrix, 5.5, 0.3 * np.eye(2))
    else:
        expected += stats.invwishart.logpdf(found.reshape(1, 1, -1), 5.5, 0.3 * np.eye(1)).sum()
    expected += stats.dirichlet.logpdf(model.weights.detach().numpy(), [1.7] * 3)
    assert model.log_prior().item() == pytest.approx(float(expected), rel=1e-6)
    assert GaussianMixture(dim=2, components=3).log_prior() == 0


@KINDS
def test_the_m_step_is_the_maximum(covariance):
    """The gradient of E[log p(x, z)] + log-prior is zero there."""
    x = three()
    prior = GaussianMixturePrior(concentration=1.5, dof=7, scale=0.4)
    for options in ({"ridge": 0}, {"prior": prior}):
        model = GaussianMixture(dim=3, components=3, covariance=covariance, **options).double()
        model.start(x)
        shares = model.responsibilities(x).detach()
        model.maximize(model.statistics(x))
        value = (shares * model.log_joint(x)).sum() + model.log_prior()
        for gradient in torch.autograd.grad(value, [model.logits, model.loc, model.raw_covariance]):
            assert gradient.abs().max() < 1e-8


@given(st.integers(1, 400), st.sampled_from(COVARIANCES), st.sampled_from([0.01, 1.0, 50.0]))
def test_fast_and_plain_formulas_agree(size, covariance, narrow):
    x = three()[:size]
    model = GaussianMixture(dim=3, components=3, covariance=covariance).double()
    model.start(x)
    with torch.no_grad():
        model.raw_covariance += math.log(narrow) if covariance in ("diagonal", "spherical") else 0.0
        fast = model.log_joint(x)
    assert torch.allclose(fast, model.log_joint(x), rtol=1e-9, atol=1e-6)


class Largest(TorchDispatchMode):
    """Notes the size in bytes of the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor) and not func.is_view:
                self.size = max(self.size, value.numel() * value.element_size())
        return made


@KINDS
@pytest.mark.parametrize("way", ["statistics", "nearest"])
def test_blocks_bound_the_memory(covariance, way):
    x = torch.randn(200_000, 20)  # 15 MiB; all features would be 176 MiB
    mixture, clusters = GaussianMixture(dim=20, components=30, covariance=covariance), KMeans(dim=20, components=30)
    found = Largest()
    with found:
        (mixture.statistics if way == "statistics" else clusters.nearest)(x)
    assert found.size <= 4 * 2**20


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"covariance='round'|covariance"):
        GaussianMixture(dim=2, components=3, ridge=-1)
    with pytest.raises(ValueError, match="components=0"):
        GaussianMixture(dim=2, components=0)
    with pytest.raises(ValueError, match="dof must be above 3"):
        GaussianMixture(dim=4, components=2, prior=GaussianMixturePrior(dof=2))
    with pytest.raises(ValueError, match="no mode"):
        GaussianMixturePrior(concentration=0.5)
    model = GaussianMixture(dim=2, components=3)
    with pytest.raises(ValueError, match=r"needs \(B, 2\)"):
        model.log_prob(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="float64"):
        model.statistics(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="1 of them with NaN"):
        model.start(torch.tensor([[1.0, 2.0], [math.nan, 3.0]]))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_starts_from_few_or_equal_data(size):
    x = torch.ones(size, 2)
    assert start_centers(x, 4, seed=0).shape == (4, 2)
    model = GaussianMixture(dim=2, components=4)
    history = em(model, x)
    assert math.isfinite(history.objectives[-1])
    with pytest.raises(ValueError, match="singular"):
        em(GaussianMixture(dim=2, components=4, ridge=0), x)


def test_the_loss_is_what_the_programs_say():
    x = three()
    model = GaussianMixture(dim=3, components=3).double()
    model.start(x)
    assert EM(model)(x)["loss"].item() == pytest.approx(-model.log_prob(x).mean().item(), rel=1e-12)
