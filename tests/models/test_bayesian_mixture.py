# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The Bayesian mixture: its updates against scikit-learn's, its bound and predictive density against exact ones."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from sklearn.cluster import KMeans
from sklearn.mixture import BayesianGaussianMixture
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_dgm.infer import ELBO, coordinate_ascent
from pyro_dgm.models import BayesianMixture
from tests.oracles import within


def blobs(*, dtype: torch.dtype = torch.float64, device: str | torch.device = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(100, 2, generator=generator, dtype=torch.float64)
    noise[60:] = noise[60:] * 0.5 + 3
    return noise.to(device=device, dtype=dtype)


def mixture(x: torch.Tensor, components: int = 4, **prior: object) -> BayesianMixture:
    covariance = x.mT.cov() if len(x) > 1 else torch.eye(x.shape[1]).to(x)
    prior = {"prior_loc": x.mean(0), "prior_scatter": covariance, **prior}
    return BayesianMixture(dim=x.shape[1], components=components, **prior).to(x)


def test_each_sweep_is_that_of_scikit_learn() -> None:
    x = blobs()
    model = mixture(x)
    model.start(x)
    labels = KMeans(4, n_init=1, random_state=0).fit(x.numpy()).labels_
    ours, theirs = [], []
    for sweeps in range(1, 12):
        peer = BayesianGaussianMixture(
            n_components=4,
            weight_concentration_prior_type="dirichlet_distribution",
            reg_covar=0,
            max_iter=sweeps,
            tol=0,
        )
        peer._initialize_parameters = lambda x, *_, peer=peer, **__: peer._initialize(x, np.eye(4)[labels])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            peer.fit(x.numpy())
        q = model.responsibilities(x)
        model.coordinate_update(model.coordinate_statistics(x))
        bound = ((q * model.log_scores(x) - torch.special.xlogy(q, q)).sum() + model.global_bound()).detach()
        ours.append(float(bound))
        theirs.append(peer.lower_bound_)  # without its constants
        for mine, its in (
            (model.loc, peer.means_),
            (model.covariances, peer.covariances_),
            (model.concentration, peer.weight_concentration_),
            (model.posterior.mean_precision, peer.mean_precision_),
            (model.posterior.dof, peer.degrees_of_freedom_),
        ):
            torch.testing.assert_close(mine.detach(), torch.from_numpy(its), atol=1e-9, rtol=1e-9)
    assert np.abs(np.diff(ours) - np.diff(theirs)).max() < 1e-8


def test_the_bound_is_the_elbo_of_both_programs() -> None:
    x = blobs()
    model = mixture(x, dof=4, concentration=1.0)
    bound = 100 * coordinate_ascent(model, x, sweeps=5).objectives[-1]
    torch.manual_seed(0)
    with torch.no_grad():
        house = torch.stack([-ELBO(50).differentiable_loss(model.model, model.guide, x) for _ in range(20)])
        stock = TraceEnum_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
        summed = torch.tensor([-stock.loss(model.model, model.guide, x) for _ in range(20)])
    assert within(house.double(), bound)
    assert within(summed.double(), bound)
    assert summed.std() < house.std()


def test_in_one_dimension_the_bound_lies_below_the_evidence_by_the_kl_divergence() -> None:
    """With one component q is the exact posterior, and the bound the evidence, a Student t of all data."""
    x = blobs()[:7, :1]
    model = mixture(x, components=1, dof=2.5, mean_precision=0.3, prior_scatter=torch.tensor([[0.7]]))
    bound = 7 * coordinate_ascent(model, x).objectives[-1]
    grid = torch.linspace(-6, 8, 1500, dtype=torch.float64)
    log_precision = torch.linspace(-12, 5, 1500, dtype=torch.float64)[:, None]
    precision = log_precision.exp()
    joint = dist.Gamma(1.25, 0.35).log_prob(precision) + log_precision
    joint = joint + dist.Normal(x.mean(), (0.3 * precision) ** -0.5).log_prob(grid)
    for datum in x[:, 0]:
        joint = joint + dist.Normal(grid, precision**-0.5).log_prob(datum)
    evidence = joint.flatten().logsumexp(0) + math.log(14 / 1499 * 17 / 1499)
    assert abs(bound - float(evidence)) < 1e-6


def test_the_predictive_density_is_the_mean_over_q() -> None:
    x = blobs()
    model = mixture(x, dof=4)
    coordinate_ascent(model, x, sweeps=10)
    grid = torch.linspace(-60, 60, 1201, dtype=torch.float64)
    total = model.log_predictive(torch.cartesian_prod(grid, grid)).detach().exp().sum() * 0.01
    assert abs(float(total) - 1) < 2e-3  # the tails are those of a Student t
    torch.manual_seed(0)
    q, new = model.posterior, torch.tensor([[0.5, 0.1], [3.0, 3.0], [1.7, 1.2]], dtype=torch.float64)
    precisions = q.precisions().sample((20000,))
    locs = q.locs(precisions).sample()
    weights = dist.Dirichlet(model.concentration).sample((20000,))
    parts = dist.MultivariateNormal(locs, precision_matrix=precisions).log_prob(new[:, None, None])
    densities = (parts.exp() * weights).sum(-1).mT.detach()
    assert within(densities, model.log_predictive(new).exp().detach())


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceEnum_ELBO, ELBO])
def test_stock_svi_raises_the_bound(loss: type) -> None:
    x = blobs(dtype=torch.float32)
    model = mixture(x, components=2, dof=4)
    model.start(x)
    with torch.no_grad():
        model.loc += 0.5
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    start = float(model.coordinate_statistics(x)["bound"] + model.global_bound().detach())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stock bounds say that they do not enumerate
        svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.05}), loss())
        for _ in range(60):
            svi.step(x)
    assert float(model.coordinate_statistics(x)["bound"] + model.global_bound().detach()) > start + 5


def test_a_mini_batch_stands_for_all_data() -> None:
    x = blobs()
    model = mixture(x)
    model.start(x)
    trace = pyro.poutine.trace(model.model).get_trace(x[:25], size=100)
    guide = pyro.poutine.trace(model.guide).get_trace(x[:25], size=100)
    assert trace.nodes["x"]["scale"] == guide.nodes["z"]["scale"] == 4
    assert trace.nodes["locs"]["scale"] == 1


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(5, 2),
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]),
        1e4 + torch.arange(12.0).reshape(6, 2),
    ],
    ids=["all alike", "one datum", "on a line", "far away"],
)
def test_poor_data_are_safe(x: torch.Tensor) -> None:
    model = BayesianMixture(dim=2, components=8)
    history = coordinate_ascent(model, x, sweeps=20)
    assert history.monotone, history.why
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert model.log_predictive(x).isfinite().all()
    torch.testing.assert_close(model.weights.sum().detach(), torch.tensor(1.0))


def test_components_without_need_lose_their_weight() -> None:
    x = blobs()
    model = BayesianMixture(dim=2, components=6, concentration=1e-3).to(x)
    coordinate_ascent(model, x, sweeps=300, tolerance=1e-9)
    assert (model.weights.sort().values[:-2] < 0.02).all()


def test_devices_and_dtypes(device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64):
        x = blobs(dtype=dtype, device=device)
        model = BayesianMixture(dim=2, components=3).to(x)
        coordinate_ascent(model, x, sweeps=3)
        assert model.log_predictive(x).dtype == dtype
        assert model.log_predictive(x).device.type == device.type
        assert model.model(size=4).shape == (4, 2)


def test_blocks_of_data_bound_the_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor has a number for each component, datum and dimension."""
    x, largest = blobs(), 0
    whole, blocks = mixture(x), mixture(x)
    whole.start(x)
    scores, predictive = whole.log_scores(x), whole.log_predictive(x)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            largest = max([largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(made) if hasattr(t, "numel"))])
            return made

    monkeypatch.setattr("pyro_dgm.distributions.normal_wishart._BLOCK", 4 * 2 * 7)
    with torch.no_grad(), Watch():
        blocks.start(x)
        found = blocks.log_scores(x), blocks.log_predictive(x)
        blocks.coordinate_statistics(x)
    assert largest == 100 * 4  # a number for each component and datum
    torch.testing.assert_close(found, (scores.detach(), predictive.detach()))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"prior_scatter": -torch.eye(2)}, "not positive definite"),
        ({"prior_scatter": torch.full((2, 2), math.nan)}, "not positive definite"),
        ({"prior_scatter": torch.eye(3)}, r"must be \(2,\) and \(2, 2\)"),
        ({"prior_loc": torch.zeros(3)}, r"must be \(2,\) and \(2, 2\)"),
        ({"prior_loc": torch.tensor([0.0, math.inf])}, "not finite"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesianMixture(dim=2, components=2, **prior)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="dof above dim - 1"):
        BayesianMixture(dim=3, components=2, dof=2)
    model = BayesianMixture(dim=3, components=2)
    with pytest.raises(ValueError, match=r"needs \(B, 3\)"):
        model.log_scores(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="finite"):
        model.start(torch.full((4, 3), math.nan))
    with pytest.raises(ValueError, match="some"):
        model.start(torch.zeros(0, 3))
