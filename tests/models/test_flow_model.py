# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow model is exact: its ELBO is its likelihood, its dreams follow it, and it finds normalisers."""

import copy
import math
import pickle
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO
from torch import nn

from pyro_dgm.data import BreastCancer, InMemory
from pyro_dgm.distributions import NormalMixture
from pyro_dgm.evaluate import dream, elbo_terms, log_likelihood
from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective
from pyro_dgm.models import FlowModel
from pyro_dgm.train import Trainer, Validation
from pyro_dgm.transforms import AffineCoupling, InverseAutoregressive, LULinear, MaskedAutoregressive, Planar, Stack

SMALL = partial(Stack, flow=partial(AffineCoupling, net=lambda i, o: Wide(i, o)), depth=3, between="random")


class Wide(nn.Module):
    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_shape[0], 8), nn.Tanh(), nn.Linear(8, math.prod(out_shape)))
        self.out_shape = out_shape

    def forward(self, x):
        return self.layers(x).unflatten(-1, self.out_shape)


def stirred(model, scale=0.5):
    """Weights at random: initial ones make identities."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(scale * torch.randn_like(weight))
    return model


def jacobian_log_prob(model, x):
    """Log p(x) by autograd's Jacobian of the inverse."""
    flow = lambda y: model.flow.inverse_and_logdet(y)[0]  # noqa: E731
    rows = [torch.autograd.functional.jacobian(flow, row).slogdet().logabsdet for row in x]
    return dist.Normal(0.0, 1.0).expand((x.shape[-1],)).to_event(1).log_prob(flow(x)) + torch.stack(rows)


@pytest.mark.parametrize("flow", [MaskedAutoregressive, InverseAutoregressive, LULinear, partial(Planar, depth=3)])
def test_every_bound_is_the_likelihood(flow):
    model, x = stirred(FlowModel(shape=(4,), flow=flow)).double(), torch.randn(6, 4).double()
    exact = jacobian_log_prob(model, x)
    torch.testing.assert_close(model.distribution().log_prob(x), exact)
    for bound in (ELBO(), ELBO(3), IWAE(5)):
        torch.testing.assert_close(bound.per_datum(model.model, model.guide, x), exact)
        torch.testing.assert_close(bound.loss(model.model, model.guide, x), -exact.sum())
    for stock in (Trace_ELBO(), TraceGraph_ELBO(), Trace_ELBO(num_particles=2, vectorize_particles=True)):
        assert stock.loss(model.model, model.guide, x) == pytest.approx(-exact.sum().item())


def test_a_base_of_another_form():
    model = stirred(FlowModel(shape=(2,), flow=LULinear, base=partial(NormalMixture, components=3))).double()
    line = torch.linspace(-12, 12, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    mass = model.distribution().log_prob(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=1e-3)


def test_data_of_other_shapes_are_put_in_a_row():
    flat, square = FlowModel(shape=(4,)), FlowModel(shape=(2, 2))
    square.load_state_dict(stirred(flat).state_dict())
    x = torch.randn(5, 2, 2)
    torch.testing.assert_close(square.distribution().log_prob(x), flat.distribution().log_prob(x.flatten(1)))
    assert square.model(size=3).shape == (3, 2, 2)


def test_dreams_follow_the_density():
    model = stirred(FlowModel(shape=(2,), flow=SMALL))
    x = dream(model.model, 20_000, mean=False)
    log_prob = model.distribution().log_prob(x).double()
    entropy = -log_prob.mean()
    again = -model.distribution().log_prob(dream(model.model, 20_000, mean=False, seed=1)).double().mean()
    assert (entropy - again).abs() < 5 * log_prob.std() * (2 / 20_000) ** 0.5
    with pytest.raises(ValueError, match="has no mean: ask for samples"):
        dream(model.model, 3)
    drawn = Predictive(model.model, num_samples=7)(size=2)["x"]
    assert drawn.shape == (7, 2, 2)


def test_maximum_likelihood_finds_a_normal_distribution():
    torch.manual_seed(3)
    x = torch.randn(2000, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, -2.0], [0.0, 0.0, 1.0]])
    best = dist.MultivariateNormal(torch.zeros(3), x.mT @ x / len(x)).log_prob(x).mean()
    model = FlowModel(shape=(3,), flow=LULinear)
    objective = Objective(model.model, model.guide, ELBO())
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=0.05))
    for _ in range(400):
        terms = step(x)
    assert terms.keys() == {"loss", "log_p.x"}
    assert -terms["loss"].item() == pytest.approx(best.item(), abs=2e-3)


def test_stock_svi_trains_it():
    x = 3 * torch.randn(300, 2) + 1
    model = FlowModel(shape=(2,), flow=LULinear)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    first = svi.step(x)
    losses = [svi.step(x) for _ in range(150)]
    assert losses[-1] < first - 100
    assert len(list(pyro.get_param_store())) == len(list(model.parameters()))


def test_evaluation_is_exact():
    model, x = stirred(FlowModel(shape=(4,))), torch.randn(30, 4)
    exact = -model.distribution().log_prob(x).double().detach()
    found = log_likelihood(model.model, model.guide, x, num_samples=5000)
    torch.testing.assert_close(found.values, exact, atol=1e-5, rtol=1e-5)
    assert str(found).startswith("NLL = ")
    assert "exact" in str(found)
    terms = elbo_terms(model.model, model.guide, x)
    torch.testing.assert_close(terms.negative_elbo.values, exact, atol=1e-5, rtol=1e-5)
    assert terms.kl == {}


def test_a_density_has_no_bits():
    model, x = FlowModel(shape=(4,)), torch.randn(30, 4)
    for estimate in (
        log_likelihood(model.model, model.guide, x),
        elbo_terms(model.model, model.guide, x).negative_elbo,
    ):
        with pytest.raises(ValueError, match="density of real numbers"):
            estimate.to_bits_per_dim((4,))


def test_a_table_is_trained_on_from_end_to_end(tmp_path):
    data = BreastCancer()
    model = FlowModel(shape=data.description.shape, flow=partial(MaskedAutoregressive, hidden=(32,)))
    objective = Objective(model.model, model.guide, ELBO())
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=3e-3))
    validation = Validation(objective, data.valid.x)
    before = validation()["loss"].item()
    trainer = Trainer(epochs=10, progress=False, tensorboard=False)
    history = trainer.fit(step, data.batches(batch_size=100), folder=tmp_path / "run", validate=validation)
    assert history.column("valid.loss")[-1] < before - 10
    independent = -dist.Normal(0.0, 1.0).log_prob(data.test.x).sum(1).mean().item()
    assert log_likelihood(model.model, model.guide, data.test.x).mean < independent - 8


class TestApproximation:
    """Reverse KL divergence to densities known up to their normaliser."""

    TARGET = dist.MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.9], [0.9, 1.0]]))

    def fitted(self, log_density, flow, *, steps, lr=0.02, bound=None):
        model = FlowModel(shape=(2,), flow=flow)
        fit = model.approximation(log_density)
        objective = Objective(fit.model, fit.guide, bound or ELBO())
        optimizer = torch.optim.Adam(objective.parameters(), lr=lr)
        step = GradientStep(objective, optimizer, clip_norm=5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            step(torch.empty(200))
            schedule.step()
        return model, fit

    def test_a_normal_distribution_is_found_with_its_normaliser(self):
        model, fit = self.fitted(lambda x: self.TARGET.log_prob(x) + 3, LULinear, steps=0)
        with torch.no_grad():  # before any training: log Z less an exactly known divergence
            elbo = ELBO().per_datum(fit.model, fit.guide, 20_000)
            iwae = IWAE(500).per_datum(fit.model, fit.guide, 500)
        kl = torch.distributions.kl_divergence(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), self.TARGET)
        assert elbo.mean().item() == pytest.approx(3 - kl.item(), abs=5 * elbo.std().item() / 20_000**0.5)
        assert elbo.mean() < iwae.mean() < 3.05

    def test_the_elbo_rises_to_the_normaliser(self):
        def flow(dim):
            return Stack(dim, flow=LULinear, depth=1)

        model, fit = self.fitted(lambda x: self.TARGET.log_prob(x) + 3, partial(Planar, depth=2), steps=0)
        assert model.flow is fit.flow
        found = {parameter for parameter in fit.parameters()}
        assert found == {parameter for parameter in model.parameters()}
        model, fit = self.fitted(lambda x: _shifted(self.TARGET, x) + 3, flow, steps=400)
        with torch.no_grad():
            values = ELBO().per_datum(fit.model, fit.guide, 1000)
        assert values.mean().item() == pytest.approx(3.0, abs=0.01)
        assert values.std() < 0.1
        assert IWAE(10).per_datum(fit.model, fit.guide, torch.empty(50)).mean().item() == pytest.approx(3.0, abs=0.01)
        x = model.model(size=20_000)
        torch.testing.assert_close(x.mT.cov(), self.TARGET.covariance_matrix, atol=0.1, rtol=0)

    def test_the_ring_of_rezende_and_mohamed(self):
        def log_density(z):
            ring = 0.5 * ((z.norm(dim=-1) - 2) / 0.4).square()
            sides = torch.logaddexp(-0.5 * ((z[..., 0] - 2) / 0.6).square(), -0.5 * ((z[..., 0] + 2) / 0.6).square())
            return sides - ring

        line = torch.linspace(-6, 6, 1201, dtype=torch.float64)
        grid = log_density(torch.cartesian_prod(line, line))
        log_z = grid.logsumexp(0).item() + 2 * math.log(line[1] - line[0])
        assert log_z == pytest.approx(1.8775, abs=1e-4)
        _, fit = self.fitted(log_density, partial(Planar, depth=8), steps=800, lr=1e-2)
        with torch.no_grad():
            values = ELBO().per_datum(fit.model, fit.guide, 10_000)
            iwae = IWAE(1000).per_datum(fit.model, fit.guide, 20)
        assert log_z - 0.4 < values.mean() < log_z + 0.02
        assert iwae.mean().item() == pytest.approx(log_z, abs=0.05)

    def test_stock_svi_fits_it_and_leaves_the_density_alone(self):
        energy = nn.Linear(2, 1)
        before = copy.deepcopy(energy.state_dict())
        fit = FlowModel(shape=(2,), flow=LULinear).approximation(lambda x: energy(x).squeeze(-1) - x.square().sum(-1))
        svi = SVI(fit.model, fit.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        losses = [svi.step(100) for _ in range(100)]
        assert losses[-1] < losses[0]
        assert all(torch.equal(before[key], value) for key, value in energy.state_dict().items())
        module = FlowModel(shape=(2,)).approximation(nn.Flatten(0))
        assert not any("density" in name for name, _ in module.named_modules())

    def test_events_of_other_shapes(self):
        fit = FlowModel(shape=(2, 3), flow=LULinear).approximation(lambda x: -x.square().sum((-1, -2)) / 2)
        value = IWAE(4).per_datum(fit.model, fit.guide, 5)
        torch.testing.assert_close(value, torch.full((5,), 3 * math.log(2 * math.pi)), atol=1e-4, rtol=0)

    def test_without_a_guide_it_cannot_run(self):
        fit = FlowModel(shape=(2,)).approximation(lambda x: -x.square().sum(-1))
        with pytest.raises(NotImplementedError, match="only scored"):
            fit.model(3)


def _shifted(target, x):
    """The target about its mean: what a linear map of noise about zero can be."""
    return target.log_prob(x + target.mean)


def test_copies_and_devices(device):
    model = stirred(FlowModel(shape=(3,))).to(device)
    x = torch.randn(5, 3, device=device)
    ELBO().loss_and_grads(model.model, model.guide, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other.distribution().log_prob(x), model.distribution().log_prob(x))
        assert other.model(size=2).device.type == device.type


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ()}, "at least one size"),
        ({"shape": (0,)}, "every size must be a positive integer"),
        ({"shape": (3,), "flow": lambda dim: LULinear(2)}, "its dimension must be 3"),
        ({"shape": (3,), "flow": partial(Planar, context_dim=2)}, "context_dim must be left out"),
        ({"shape": (3,), "flow": LULinear(3)}, "needs what makes one"),
        ({"shape": (3,), "flow": lambda dim: nn.Linear(dim, dim)}, "makes Linear"),
    ],
)
def test_what_is_no_flow_model_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        FlowModel(**options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.int64), "Dequantise"),
        (torch.zeros(5, 3, dtype=torch.bool), "dtype torch.bool"),
        (torch.zeros(5, 4), r"shape \(5, 4\): it needs \(B, 3\)"),
        (torch.zeros(3), r"x.unsqueeze\(0\)"),
        (torch.zeros(5, 3, dtype=torch.float64), "use x.to"),
        (torch.tensor([[0.0] * 3, [0.0, torch.nan, 0.0], [torch.inf] * 3]), "2 of 3 rows of x, the first of them 1, 2"),
    ],
)
def test_what_is_no_datum_is_an_error(x, message):
    model = FlowModel(shape=(3,))
    with pytest.raises(ValueError, match=message):
        ELBO().loss(model.model, model.guide, x)


def test_rows_that_are_not_finite_are_found_before_training():
    x = torch.where(torch.arange(20)[:, None] == 7, torch.nan, torch.randn(20, 3))
    with pytest.raises(ValueError, match="NaN or infinite values in 1 of"):
        InMemory(x, levels=None)
