# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Random weights of a network, against Bayesian linear regression, where everything is known."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_dgm.infer import ELBO, GradientStep
from pyro_dgm.infer.data_set_objective import DataSetObjective
from pyro_dgm.models import BayesianWeights
from pyro_dgm.nn import MLP

SIZE, NOISE, PRIOR = 40, 0.5, 0.8


class Regression(nn.Module):
    """y ~ N(line(x), 0.5^2) with w ~ N(0, 0.8^2): the rows of a batch are (x, y)."""

    def __init__(self, posterior="normal"):
        super().__init__()
        torch.manual_seed(0)
        self.line = BayesianWeights(nn.Linear(3, 1).double(), posterior=posterior, prior_scale=PRIOR)

    def model(self, rows):
        weights = self.line.model()
        with pyro.plate("data", SIZE, subsample=torch.arange(len(rows))):
            mean = self.line(weights, rows[:, :3]).squeeze(-1)
            pyro.sample("y", dist.Normal(mean, NOISE), obs=rows[:, 3])

    def guide(self, rows):
        self.line.guide()

    def at(self, mean, scale=None):
        with torch.no_grad():
            self.line.loc.copy_(mean)
            if scale is not None:
                self.line.log_scale.copy_(scale.log())
        return self


def rows(*, orthogonal=True):
    """Inputs, uncorrelated or correlated, and outputs."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE, 4, generator=generator, dtype=torch.float64)
    x, noise = x[:, :3] - x[:, :3].mean(0), x[:, 3]
    if orthogonal:
        x = torch.linalg.qr(x).Q * torch.tensor([2.0, 5.0, 8.0], dtype=torch.float64)
    else:
        x = x @ torch.tensor([[1.0, 0.9, 0.0], [0.0, 1.0, 0.5], [0.3, 0.0, 1.0]], dtype=torch.float64)
    return torch.cat([x, (x @ torch.tensor([1.0, -0.5, 0.2]).double() + 0.3 + NOISE * noise).unsqueeze(-1)], 1)


def posterior(data):
    """Mean and covariance of the weights, the bias last; and the evidence."""
    features, y = torch.cat([data[:, :3], torch.ones(SIZE, 1).double()], 1), data[:, 3]
    covariance = torch.linalg.inv(features.mT @ features / NOISE**2 + torch.eye(4).double() / PRIOR**2)
    of_y = PRIOR**2 * features @ features.mT + NOISE**2 * torch.eye(SIZE).double()
    evidence = dist.MultivariateNormal(torch.zeros(SIZE).double(), of_y).log_prob(y)
    return covariance @ features.mT @ y / NOISE**2, covariance, evidence


@pytest.mark.parametrize("particles", [1, 4])
def test_at_the_exact_posterior_every_sample_gives_the_evidence(particles):
    data = rows()
    mean, covariance, evidence = posterior(data)
    pair = Regression().at(mean, covariance.diagonal().sqrt())
    assert -ELBO(particles).loss(pair.model, pair.guide, data).item() == pytest.approx(evidence.item(), abs=1e-9)
    assert -Trace_ELBO(particles).loss(pair.model, pair.guide, data) == pytest.approx(evidence.item(), abs=1e-9)
    stock = Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1)
    assert -stock.loss(pair.model, pair.guide, data) == pytest.approx(evidence.item(), abs=1e-9)


def test_with_correlated_inputs_the_gap_is_the_divergence():
    data = rows(orthogonal=False)
    mean, covariance, evidence = posterior(data)
    scale = torch.linalg.inv(covariance).diagonal().rsqrt()  # the best that independent normals can
    pair = Regression().at(mean, scale)
    torch.manual_seed(0)
    found = torch.stack([-ELBO(1000, analytic_kl=True).loss(pair.model, pair.guide, data) for _ in range(10)])
    gap = torch.distributions.kl_divergence(
        dist.MultivariateNormal(mean, scale.square().diag()), dist.MultivariateNormal(mean, covariance)
    )
    assert gap > 0.1
    error = found.std() / math.sqrt(10)
    assert abs(float(found.mean() - (evidence - gap))) < 5 * error


def test_mini_batches_add_up_to_all_data():
    data, pair = rows(), Regression("map")
    whole = ELBO().loss(pair.model, pair.guide, data)
    parts = [ELBO().loss(pair.model, pair.guide, part) for part in data.split(8)]
    assert torch.allclose(torch.stack(parts).mean(), whole)
    assert torch.stack(parts).std() > 0


def test_a_batch_counts_as_all_data_and_the_prior_once():
    data, pair = rows()[:10], Regression("map")
    prior = dist.Normal(0.0, PRIOR).log_prob(pair.line.loc).sum()
    mean = pair.line.net(data[:, :3]).squeeze(-1)
    likelihood = dist.Normal(mean, NOISE).log_prob(data[:, 3]).sum()
    loss = ELBO().loss(pair.model, pair.guide, data)
    assert torch.allclose(-loss, prior + 4 * likelihood)
    terms = DataSetObjective(pair.model, pair.guide, ELBO(), size=SIZE)(data)
    assert torch.allclose(terms["loss"], loss / SIZE)
    assert torch.allclose(terms["log_p.weights"], prior / SIZE)
    assert torch.allclose(terms["log_p.y"], 4 * likelihood / SIZE)
    assert terms["log_q.weights"] == 0


@pytest.mark.parametrize("orthogonal", [True, False])
def test_map_is_ridge_regression(orthogonal):
    data, pair = rows(orthogonal=orthogonal), Regression("map")
    pair.at(posterior(data)[0])
    ELBO().loss_and_grads(pair.model, pair.guide, data)
    assert torch.allclose(pair.line.loc.grad, torch.zeros(4).double(), atol=1e-9)


def test_training_by_mini_batches_finds_the_posterior():
    data, pair = rows(), Regression()
    mean, covariance, _ = posterior(data)
    bound = ELBO(8, analytic_kl=True)
    optimizer = torch.optim.Adam(pair.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    step = GradientStep(DataSetObjective(pair.model, pair.guide, bound, size=SIZE), optimizer, scheduler=schedule)
    torch.manual_seed(0)
    for _ in range(60):
        for batch in data[torch.randperm(SIZE)].split(20):
            step(batch)
        step.epoch_end()
    scale = covariance.diagonal().sqrt()
    assert ((pair.line.loc - mean).abs() < 0.5 * scale).all()
    assert torch.allclose(pair.line.log_scale.exp(), scale, rtol=0.3)


def test_it_trains_under_stock_svi():
    data, pair = rows(), Regression()
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(4))
    losses = [svi.step(data) for _ in range(60)]
    assert min(losses[-10:]) < losses[0]
    assert set(pyro.get_param_store()) >= {"loc", "log_scale"}
    pyro.clear_param_store()


def test_each_particle_is_a_network_of_its_own(device):
    torch.manual_seed(0)
    net = MLP((3,), (2, 2), hidden=(5,))
    weights = BayesianWeights(net).to(device)
    net = net.to(device)
    assert weights.size == sum(part.numel() for part in net.parameters())
    w = weights.loc + torch.randn(4, 1, weights.size, device=device)
    z, shared = torch.randn(4, 7, 3, device=device), torch.randn(7, 3, device=device)
    one_by_one = torch.stack([weights(w[k, 0], z[k]) for k in range(4)])
    assert torch.equal(weights(w, z), one_by_one)
    assert torch.equal(weights(w, shared)[2], weights(w[2, 0], shared))
    assert torch.allclose(weights(weights.loc, shared), net(shared))


def test_tied_weights_are_one():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    weights = BayesianWeights(net)
    assert weights.size == 15
    assert torch.equal(weights(weights.loc, torch.ones(2, 3)), net(torch.ones(2, 3)))
    drawn = weights.drawn()
    assert drawn[0].weight is drawn[1].weight


def test_what_is_drawn_is_a_plain_network():
    torch.manual_seed(0)
    weights = BayesianWeights(nn.Linear(3, 2), start_scale=0.1)
    x = torch.randn(5, 3)
    assert torch.equal(weights.drawn(mean=True)(x), weights(weights.loc, x))
    draws = torch.stack([torch.cat([p.flatten() for p in weights.drawn().parameters()]) for _ in range(400)])
    assert ((draws.mean(0) - weights.loc).abs() < 5 * 0.1 / 20).all()
    assert torch.allclose(draws.std(0), torch.full((8,), 0.1), rtol=0.2)
    point = BayesianWeights(nn.Linear(3, 2), posterior="map")
    assert torch.equal(point.drawn().weight, point.drawn(mean=True).weight)


def test_it_copies_pickles_and_leaves_the_network_alone():
    net = nn.Linear(3, 2)
    before = copy.deepcopy(net.state_dict())
    weights = BayesianWeights(net)
    x, w = torch.randn(5, 3), torch.randn(8)
    for twin in (copy.deepcopy(weights), pickle.loads(pickle.dumps(weights))):
        assert torch.equal(twin(w, x), weights(w, x))
    assert set(weights.state_dict()) == {"loc", "log_scale", "prior_scale"}
    assert {name for name, _ in weights.named_parameters()} == {"loc", "log_scale"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": "flow"}, "posterior"),
        ({"prior_scale": 0}, "positive"),
        ({"start_scale": -1.0}, "positive"),
        ({"net": nn.Tanh()}, "without weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises((ValueError, TypeCheckError), match=message):  # the second while annotations are checked
        BayesianWeights(**{"net": nn.Linear(3, 2), **options})


def test_weights_inside_the_data_plate_are_refused():
    weights = BayesianWeights(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="outside the data plate"):
        weights(torch.zeros(4, 7, 8), torch.zeros(4, 7, 3))
    with pytest.raises(ValueError, match="begins with K"):
        weights(torch.zeros(4, 1, 8), torch.zeros(3, 7, 3))


def test_a_data_set_has_a_size():
    with pytest.raises(ValueError, match="size=0"):
        DataSetObjective(Regression().model, Regression().guide, ELBO(), size=0)
