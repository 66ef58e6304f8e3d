# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""AutoFlow is an autoguide like any other, and is exact where its flow can be."""

import copy
import math
import pickle
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoNormal, init_to_value
from pyro.infer.reparam import NeuTraReparam
from pyro.poutine import reparam
from torch import nn

from pyro_dgm.infer import ELBO, IWAE, AutoFlow, local_parameters
from pyro_dgm.transforms import InverseAutoregressive, LULinear, NeuralAutoregressive, Planar, SplineCoupling, Stack
from tests.oracles import not_above

X = torch.tensor([0.3, -1.2, 0.8, 2.0], dtype=torch.float64)
DESIGN = torch.tensor([[1.0, 0.9], [1.0, 1.1], [1.0, 1.4], [1.0, 1.6]], dtype=torch.float64)


def regression(x=X):
    """Two weights whose posterior is a correlated normal distribution, and log p(x) is known."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal((DESIGN.to(x) * weights).sum(-1), 0.5), obs=x)


def line(x=X):
    """The same, for programs that run many particles at once."""
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
    mean = weights @ DESIGN.to(x).mT
    pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


EVIDENCE = dist.MultivariateNormal(torch.zeros(4).double(), DESIGN @ DESIGN.mT + 0.25 * torch.eye(4).double()).log_prob(
    X
)
PRECISION = torch.eye(2).double() + DESIGN.mT @ DESIGN / 0.25
MEAN_FIELD_GAP = 0.5 * (PRECISION.diagonal().log().sum() - PRECISION.logdet())
"""KL divergence of the best independent normal distributions from a normal posterior."""


def everything():
    """Latent variables on several supports, in and out of plates."""
    pyro.sample("real", dist.Normal(0.0, 1.0))
    scale = pyro.sample("positive", dist.Gamma(2.0, 1.0))
    pyro.sample("unit", dist.Beta(torch.ones(2), 2.0).to_event(1))
    pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("outer", 3, dim=-2), pyro.plate("inner", 2, dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), scale.unsqueeze(-1)).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.ones(3, 2))


def trained(model, guide, *, steps, lr=0.05, particles=32):
    guide()
    loss = ELBO(particles)(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    return guide


def elbo(model, guide, particles=2000):
    with torch.no_grad():
        return -ELBO(particles).loss(model, guide)


def test_a_correlated_posterior_is_found_exactly():
    guide = trained(line, AutoFlow(line, flow=LULinear), steps=400)
    assert elbo(line, guide).item() == pytest.approx(EVIDENCE.item(), abs=2e-3)
    z = Predictive(line, guide=guide, num_samples=20_000, parallel=True)()["weights"].squeeze()
    torch.testing.assert_close(z.mT.cov(), PRECISION.inverse(), atol=0.01, rtol=0.05)
    independent = trained(line, AutoDiagonalNormal(line), steps=400)
    gap = EVIDENCE - elbo(line, independent, particles=100_000)
    assert gap.item() == pytest.approx(MEAN_FIELD_GAP.item(), abs=0.02)
    assert MEAN_FIELD_GAP > 1


def test_one_dimension_takes_any_form():
    def model():  # a normal distribution cut off far from its mean: nearly an exponential one
        u = pyro.sample("u", dist.Exponential(1.0))
        pyro.sample("x", dist.Normal(u, 0.5), obs=torch.tensor(-1.0))

    grid = torch.linspace(1e-6, 6, 200_001, dtype=torch.float64)
    log_p = dist.Exponential(1.0).log_prob(grid) + dist.Normal(grid, 0.5).log_prob(torch.tensor(-1.0))
    evidence = log_p.logsumexp(0) + math.log(6 / 200_000)
    flow = partial(NeuralAutoregressive, hidden=(8,))
    guide = trained(model, AutoFlow(model, flow=flow), steps=400)
    normal = trained(model, AutoNormal(model), steps=400)
    assert evidence - 0.05 < elbo(model, guide, 20_000) < evidence + 0.01
    assert elbo(model, normal, 20_000) < evidence - 0.09


@pytest.mark.parametrize(
    "bound", [ELBO(), ELBO(4), IWAE(20), Trace_ELBO(), TraceGraph_ELBO()], ids=lambda b: type(b).__name__
)
def test_stock_svi_trains_it_with_any_bound(bound):
    guide = AutoFlow(regression, flow=partial(Planar, depth=2))
    svi = SVI(regression, guide, pyro.optim.Adam({"lr": 0.03}), bound)
    first = sum(svi.step(X) for _ in range(5)) / 5
    for _ in range(150):
        svi.step(X)
    losses = torch.tensor([bound.loss(regression, guide, X) for _ in range(100)])
    assert losses.mean() < first
    assert not_above(-losses, EVIDENCE)
    assert len(list(pyro.get_param_store())) == len(list(guide.parameters()))
    assert all(parameter.isfinite().all() for parameter in guide.parameters())


@pytest.mark.parametrize("flow", [LULinear, InverseAutoregressive, SplineCoupling, partial(Stack, depth=2), None])
def test_any_model_with_any_flow(flow):
    guide = AutoFlow(everything) if flow is None else AutoFlow(everything, flow=flow)
    shapes = {"real": (), "positive": (), "unit": (2,), "simplex": (3,), "z": (3, 2, 4)}
    assert {name: tuple(value.shape) for name, value in guide().items()} == shapes
    assert guide.latent_dim == 1 + 1 + 2 + 2 + 24
    loss = Trace_ELBO(num_particles=3, vectorize_particles=True).differentiable_loss(everything, guide)
    loss.backward()
    assert all(parameter.grad is not None for parameter in guide.parameters())
    draws = Predictive(everything, guide=guide, num_samples=5, parallel=True)()
    assert draws["z"].shape == (5, 3, 2, 4)
    assert (draws["simplex"].sum(-1) - 1).abs().max() < 1e-5
    assert {name: tuple(value.shape) for name, value in guide.median().items()} == shapes
    found = guide.quantiles([0.1, 0.5, 0.9])
    assert {name: tuple(value.shape) for name, value in found.items()} == {k: (3, *v) for k, v in shapes.items()}
    assert (found["z"][0] < found["z"][2]).all()
    assert ((found["unit"] > 0) & (found["unit"] < 1)).all()


def test_its_density_is_that_of_its_samples():
    guide = AutoFlow(line, flow=partial(InverseAutoregressive, hidden=(8,)))
    guide()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    posterior = guide.get_posterior()
    grid = torch.linspace(-30, 30, 601, dtype=torch.float64)
    mass = posterior.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * 0.1**2
    assert mass.item() == pytest.approx(1.0, abs=0.02)
    z = posterior.rsample((7,))
    again = dist.TransformedDistribution(guide.get_base_dist(), guide.get_transform().with_cache(0)).log_prob(z.clone())
    torch.testing.assert_close(posterior.log_prob(z), again)


def test_it_starts_where_it_is_told_to():
    start = {"weights": torch.tensor([100.0, -50.0], dtype=torch.float64)}
    guide = AutoFlow(line, init_loc_fn=init_to_value(values=start), init_scale=0.01)
    guide()
    draws = torch.stack([guide()["weights"] for _ in range(50)])
    assert (draws - start["weights"]).abs().max() < 0.2
    assert draws.std(0).min() > 1e-3


def test_quantiles_are_those_of_the_draws_and_leave_chance_alone():
    guide = trained(line, AutoFlow(line, flow=LULinear), steps=200)
    before = torch.get_rng_state()
    levels = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0])
    found = guide.quantiles(levels)["weights"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, guide.quantiles(levels.tolist())["weights"])
    assert torch.equal(found[2], guide.median()["weights"])
    draws = Predictive(line, guide=guide, num_samples=50_000, parallel=True)()["weights"].squeeze()
    error = (found[1:4] - draws.quantile(levels[1:4].double(), dim=0)).abs() / draws.std(0)
    assert error.max() < 0.06
    assert (found.diff(dim=0) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_follows_the_model_to_its_device_and_type(dtype, device):
    x = X.to(device, dtype)
    guide = AutoFlow(regression)
    value = guide(x)["weights"]
    assert (value.dtype, value.device.type) == (dtype, device.type)
    assert {(p.dtype, p.device.type) for p in guide.parameters()} == {(dtype, device.type)}
    assert (guide.median()["weights"].dtype, guide.median()["weights"].device.type) == (dtype, device.type)
    IWAE(3).loss_and_grads(regression, guide, x)


def test_a_global_variable_may_see_a_part_of_the_data():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("data", len(x), subsample_size=2) as index:
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])

    guide = AutoFlow(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), ELBO())
    for _ in range(150):
        svi.step(X)
    exact = dist.MultivariateNormal(torch.zeros(4).double(), (torch.eye(4) + 1).double()).log_prob(X)
    losses = torch.stack([ELBO().loss(model, guide, X) for _ in range(150)])
    assert (losses.mean() + exact).abs() < 0.1 + 5 * losses.std() / 150**0.5


class Model(nn.Module):
    """A program that is a module, whose weights would leave a graph behind."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self):
        z = pyro.sample("z", dist.Normal(self.weight, self.weight.exp()).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.zeros(2))


def test_copies_are_whole_and_leave_the_original_whole():
    model = Model()
    guide = AutoFlow(model, flow=lambda dim: NeuralAutoregressive(dim))
    untrained = copy.deepcopy(guide)
    with local_parameters(guide):  # Pyro's parameter store would put into the parameters what no pickle can hold
        ELBO().loss_and_grads(model, guide)
        restored = AutoFlow(model)
        restored()
        restored.load_state_dict(guide.state_dict())
        others = [copy.deepcopy(guide), pickle.loads(pickle.dumps(guide)), restored]
        torch.manual_seed(1)
        expected = guide()["z"]
        for whole in others:
            torch.manual_seed(1)
            assert torch.equal(whole()["z"], expected)
            with torch.no_grad():
                next(whole.parameters()).add_(1.0)
        torch.manual_seed(1)
        assert torch.equal(guide()["z"], expected)
    assert guide.model is others[0].model is untrained.model
    assert untrained()["z"].shape == (2,)
    assert len(list(guide.parameters())) == len(list(untrained.transform.parameters()))


def test_it_is_a_part_of_a_list_of_guides():
    guide = AutoGuideList(everything)
    guide.append(AutoFlow(pyro.poutine.block(everything, hide=["z"])))
    guide.append(AutoNormal(pyro.poutine.block(everything, expose=["z"])))
    assert set(guide()) == {"real", "positive", "unit", "simplex", "z"}
    assert set(guide.median()) == set(guide())
    ELBO().loss_and_grads(everything, guide)
    assert set(copy.deepcopy(guide)()) == set(guide.median())


def test_a_markov_chain_runs_in_its_noise():
    guide = trained(line, AutoFlow(line, flow=LULinear), steps=200)
    guide.requires_grad_(False)
    neutra = NeuTraReparam(guide)
    chain = MCMC(NUTS(reparam(line, config=lambda _: neutra)), num_samples=150, warmup_steps=30, disable_progbar=True)
    chain.run()
    (noise,) = chain.get_samples().values()
    draws = neutra.transform_sample(noise)
    exact = torch.linalg.solve(PRECISION, DESIGN.mT @ X / 0.25)
    assert ((draws["weights"].mean(0) - exact) / PRECISION.inverse().diagonal().sqrt()).abs().max() < 0.4


def subsampled(x=X):
    with pyro.plate("data", len(x), subsample_size=2) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def discrete():
    pyro.sample("z", dist.Bernoulli(0.5))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AutoFlow(line, init_scale=0.0), ValueError, "init_scale=0.0: it must be positive"),
        (lambda: AutoFlow(line, flow=LULinear(2)), ValueError, "needs what makes one"),
        (lambda: AutoFlow(line, flow=lambda dim: LULinear(dim + 1)), ValueError, "its dimension must be 2"),
        (lambda: AutoFlow(line, flow=lambda dim: nn.Linear(dim, dim)), ValueError, "makes Linear"),
        (lambda: AutoFlow(line, flow=partial(Planar, context_dim=3)), ValueError, "context_dim must be left out"),
        (lambda: AutoFlow(subsampled), ValueError, "'z' in the plate 'data', which draws 2 of 4"),
        (lambda: AutoFlow(discrete), (NotImplementedError, ValueError), "z|Bernoulli"),
        (lambda: AutoFlow(lambda: None), RuntimeError, "no latent variables"),
    ],
)
def test_what_it_cannot_guide_is_an_error_each_time(make, error, message):
    guides = []
    for _ in range(2):  # a call that failed leaves no half of a guide behind
        with pytest.raises(error, match=message):
            _first(guides, make)()


def _first(made, make):
    if not made:
        made.append(make())
    return made[0]


def test_without_a_first_call_there_are_no_quantiles():
    with pytest.raises(ValueError, match="before its first call"):
        AutoFlow(line).median()
