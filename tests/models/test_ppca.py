# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Linear factor models as Pyro programs, as densities and under EM; PPCA against scikit-learn and its closed form."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from sklearn.decomposition import PCA

from pyro_dgm.evaluate import log_likelihood
from pyro_dgm.infer import ELBO, EM, IWAE, em
from pyro_dgm.models import PPCA
from tests.cases import FACTOR_MODELS

EACH = pytest.mark.parametrize("name", FACTOR_MODELS)


def data(size=60, dim=6, *, device="cpu", dtype=torch.float64):
    """Three factors, noise, and a mean far from zero."""
    generator = torch.Generator().manual_seed(5)
    draw = torch.randn(size + dim, 3 + dim, generator=generator, dtype=torch.float64)
    loading, z, noise = draw[:dim, :3], draw[dim:, :3], draw[dim:, 3:]
    return (z @ loading.mT + 0.4 * noise + torch.arange(dim)).to(device=device, dtype=dtype)


def make(name, *, device="cpu", dtype=torch.float64):
    torch.manual_seed(3)
    return FACTOR_MODELS[name]().to(device=device, dtype=dtype)


def normal(model):
    return dist.MultivariateNormal(model.loc, model.covariance)


@EACH
def test_it_is_the_normal_distribution_that_it_says(name, device):
    model, x = make(name, device=device), data(device=device)
    assert torch.allclose(model.log_prob(x), normal(model).log_prob(x), rtol=1e-12)


@EACH
def test_the_guide_is_the_posterior(name, device):
    model, x = make(name, device=device), data(device=device)
    joint = torch.cat([torch.cat([model.covariance, model.loading], 1), torch.cat([model.loading.mT, torch.eye(2)], 1)])
    gain = joint[6:, :6] @ torch.linalg.inv(joint[:6, :6])
    found = model.posterior(x)
    assert torch.allclose(found.mean, (x - model.loc) @ gain.mT)
    assert torch.allclose(found.covariance_matrix, (joint[6:, 6:] - gain @ joint[:6, 6:]).expand(60, 2, 2))
    assert (found.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


@EACH
@pytest.mark.parametrize("bound", [ELBO(), ELBO(3), IWAE(3), ELBO(gradient="stl")], ids=["1", "3", "iwae", "stl"])
def test_every_bound_is_exact_with_any_sample(name, bound):
    model, x = make(name), data()
    assert torch.allclose(bound.per_datum(model.model, model.guide, x), model.log_prob(x), rtol=1e-10)
    exact = torch.autograd.grad(-model.log_prob(x).sum(), list(model.parameters()))
    loss = bound.differentiable_loss(model.model, model.guide, x)
    if bound.gradient == "total":
        for ours, right in zip(torch.autograd.grad(loss, list(model.parameters())), exact, strict=True):
            assert torch.allclose(ours, right, rtol=1e-8, atol=1e-8)


@EACH
def test_the_likelihood_by_sampling_is_the_exact_one(name):
    model, x = make(name), data()
    found = log_likelihood(model.model, model.guide, x, num_samples=3)
    assert torch.allclose(found.values, -model.log_prob(x), rtol=1e-10)


@EACH
def test_it_trains_under_stock_svi(name):
    model, x = make(name), data()
    before = copy.deepcopy(model.state_dict())
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(50)]
    assert losses[-1] < losses[0]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"loading", "loc", "log_scale"}
    assert losses[0] == pytest.approx(-make(name).log_prob(x).sum().item(), rel=1e-10)


@EACH
def test_it_dreams_what_it_scores(name, device):
    model = make(name, device=device)
    torch.manual_seed(0)
    dream = model.model(size=40_000)
    assert dream.device.type == device.type
    assert dream.dtype == torch.float64
    error = model.covariance.diagonal().sqrt() / 200
    assert ((dream.mean(0) - model.loc).abs() < 5 * error).all()
    assert torch.allclose(dream.T.cov(), model.covariance, atol=0.1)
    assert model.model(dream) is dream


@EACH
def test_predictive_and_condition(name):
    model, x = make(name), data()
    assert Predictive(model.model, guide=model.guide, num_samples=3)(x)["z"].shape == (3, 60, 2)
    assert Predictive(model.model, num_samples=3)(size=4)["x"].shape == (3, 4, 6)
    z = torch.zeros(4, 2, dtype=torch.float64)
    trace = poutine.trace(poutine.condition(model.model, {"z": z})).get_trace(size=4)
    assert torch.equal(trace.nodes["z"]["value"], z)


@EACH
def test_it_copies_and_pickles(name):
    model, x = make(name), data()
    model.start(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.log_prob(x), model.log_prob(x))
    fresh = make(name)
    fresh.load_state_dict(model.state_dict())
    found, again = model.statistics(x), fresh.statistics(x)
    assert all(torch.equal(found[key], again[key]) for key in found)


@EACH
def test_chunks_and_scales_of_statistics_make_one_m_step(name, device):
    x = data(device=device)
    models = [make(name, device=device) for _ in range(3)]
    whole = models[0].statistics(x)
    parts = [models[1].statistics(part) for part in x.split(7)]
    assert {value.dtype for value in whole.values()} == {torch.float64}
    models[0].maximize(whole)
    models[1].maximize({key: torch.stack([part[key] for part in parts]).sum(0) for key in whole})
    models[2].maximize({key: value * 0.01 for key, value in whole.items()})
    for other in models[1:]:
        for ours, theirs in zip(models[0].parameters(), other.parameters(), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-9)


@EACH
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_em_in_single_precision_arrives_where_double_does(name, seed, offset):
    x, ends = data() + offset, []
    for dtype in (torch.float32, torch.float64):
        model = make(name, dtype=dtype)
        model.start(x.to(dtype), seed=seed)
        for _ in range(40):
            model.maximize(model.statistics(x.to(dtype)))
        ends.append(model.double().log_prob(x).mean().item())
    assert ends[0] == pytest.approx(ends[1], abs=2e-4)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_em_of_the_house_runs_it(name, dtype, device):
    model, x = make(name, device=device, dtype=dtype), data(device=device, dtype=dtype)
    before = model.log_prob(x).mean()
    history = em(model, x, sweeps=30, seed=None, chunk_size=17)
    assert history.monotone, history.why
    assert history.objectives[0] == pytest.approx(before.item(), rel=1e-5)
    assert history.objectives[-1] == pytest.approx(model.log_prob(x).mean().item(), rel=1e-5)
    assert history.objectives[-1] > history.objectives[0] + 1


@EACH
def test_online_em_comes_close(name):
    x, best = data(400), make(name)
    em(best, x, sweeps=500)
    model = make(name)
    model.start(x, seed=1)
    step = EM(model, online=(2, 0.7))
    torch.manual_seed(0)
    for _ in range(100):
        for batch in x[torch.randperm(400)].split(40):
            step(batch)
    assert model.log_prob(x).mean() > best.log_prob(x).mean() - 0.05


def test_starts_from_two_seeds_differ_and_one_seed_repeats():
    x, models = data(), [make("PPCA") for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        model.start(x, seed=seed)
    assert torch.equal(models[0].loading, models[1].loading)
    assert not torch.equal(models[0].loading, models[2].loading)


def test_single_precision_survives_a_noise_eight_orders_below():
    torch.manual_seed(0)
    model = PPCA(dim=20, latent=4, floor=1e-9)
    with torch.no_grad():
        model.loading.mul_(1e2)
        model.log_scale.fill_(-4.6)
    x = model.model(size=100).detach()
    single, double = model.log_prob(x), model.double().log_prob(x.double())
    assert torch.allclose(single.double(), double, rtol=1e-3)
    assert model.float().posterior(x).mean.isfinite().all()


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 500])
def test_the_closed_form_is_scikit_learns_pca(size, device):
    """Its score is that of variances with 1 / (n - 1): scaled likewise, ours is the same."""
    x, model = data(size, device=device), make("PPCA", device=device)
    model.maximum_likelihood(x)
    assert torch.allclose(model.loc, x.mean(0))
    if size < 3:  # no noise is left, so there is a floor instead, and scikit-learn has no number
        assert torch.allclose(model.noise, model.least.expand_as(model.noise))
        assert model.log_prob(x).isfinite().all()
        return
    with torch.no_grad():
        unbiased = size / (size - 1)
        model.log_scale.copy_(0.5 * (unbiased * model.noise[0] - model.least).log())
        model.loading.mul_(unbiased**0.5)
    peer = PCA(2, svd_solver="full").fit(x.cpu().numpy())
    if size > 6:  # below, scikit-learn averages the noise over fewer directions than there are
        assert model.log_prob(x).mean().item() == pytest.approx(peer.score(x.cpu().numpy()), abs=1e-6)
    axes = torch.from_numpy(peer.components_).to(x)
    inside = (axes @ torch.linalg.qr(model.loading.detach()).Q).norm(dim=-1)
    assert torch.allclose(inside, torch.ones_like(inside))


def test_few_data_of_many_dimensions():
    x = data(5, 40)
    model = PPCA(dim=40, latent=3).double()
    model.maximum_likelihood(x)
    best = model.log_prob(x).sum().item()
    covariance = (x - x.mean(0)).mT @ (x - x.mean(0)) / 5
    spectrum = torch.linalg.eigvalsh(covariance).flip(0)
    assert model.noise[0].item() == pytest.approx(float(spectrum[3:].sum() / 37), rel=1e-8)
    model.start(x, seed=1)
    for _ in range(5000):
        model.maximize(model.statistics(x))
    assert model.log_prob(x).sum().item() == pytest.approx(best, abs=1e-6)


def test_a_constant_datum_or_coordinate_meets_the_floor():
    x = data()
    x[:, 2] = 7.0
    for name in FACTOR_MODELS:
        for found in (x, x[:1], x[:1].expand(20, 6)):
            model = make(name)
            model.start(found)
            for _ in range(20):
                model.maximize(model.statistics(found))
            assert (model.noise >= model.least).all()
            assert model.log_prob(found).isfinite().all()
            assert all(value.isfinite().all() for value in model.state_dict().values())


@EACH
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 6, dtype=torch.long), "dtype"),
        (torch.zeros(3, 6), "float64"),
        (torch.zeros(3, 5, dtype=torch.float64), "needs"),
        (torch.zeros(6, dtype=torch.float64), "unsqueeze"),
    ],
)
def test_wrong_data_are_refused(name, x, message):
    model = make(name)
    for program in (model.model, model.guide, model.log_prob, model.statistics, model.start):
        with pytest.raises(ValueError, match=message):
            program(x)


@EACH
def test_a_start_from_nothing_or_from_nan_is_refused(name):
    model, x = make(name), data()
    with pytest.raises(ValueError, match="no data"):
        model.start(x[:0])
    x[3, 1], x[4, 2] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 60 rows"):
        model.start(x)


@pytest.mark.parametrize("sizes", [{"dim": 3, "latent": 3}, {"dim": 3, "latent": 0}, {"dim": 1, "latent": 1}])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ValueError, match="1 <= latent < dim"):
        PPCA(**sizes)


def test_no_floor_is_refused():
    with pytest.raises(ValueError, match="floor"):
        PPCA(dim=3, latent=1, floor=0)
