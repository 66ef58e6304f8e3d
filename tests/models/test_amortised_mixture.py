# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A network in the place of the posterior: the bound with z summed, its gradient, and any kind of mixture."""

from functools import partial

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import Adam

from pyro_dgm.infer import ELBO
from pyro_dgm.infer.enumerated_objective import EnumeratedObjective
from pyro_dgm.models import AmortisedMixture, GaussianMixture, KMeans
from pyro_dgm.nn import MLP

NET = partial(MLP, hidden=(8,))
MIXTURES = {
    "full": lambda: GaussianMixture(dim=2, components=3),
    "spherical": lambda: GaussianMixture(dim=2, components=3, covariance="spherical"),
    "k-means": lambda: KMeans(dim=2, components=3, variance=0.5),
}


def made(kind, device="cpu", dtype=torch.float64):
    torch.manual_seed(0)
    model = AmortisedMixture(mixture=MIXTURES[kind](), shape=(2,), net=NET).to(device, dtype)
    return model, torch.randn(40, 2, dtype=dtype, device=device)


@pytest.mark.parametrize("kind", MIXTURES)
def test_the_bound_is_that_of_stock_enumeration(kind, device):
    model, x = made(kind, device)
    loss = EnumeratedObjective(model.model, model.guide)(x)["loss"]
    assert loss.item() == pytest.approx(-model.elbo(x).mean().item())
    with pyro.settings.context(module_local_params=True):
        stock = TraceEnum_ELBO(max_plate_nesting=1).loss(model.model, model.guide, x)
    assert stock == pytest.approx(loss.item() * len(x))


@pytest.mark.parametrize("kind", MIXTURES)
def test_sampled_bounds_have_the_same_mean(kind):
    """The house's ELBO, over many samples of z, has the value of the sum within five standard errors."""
    model, x = made(kind)
    found = torch.stack([ELBO().per_datum(model.model, model.guide, x).detach().mean() for _ in range(100)])
    assert abs(found.mean() - model.elbo(x).mean()) < 5 * found.std() / 10


def test_the_gap_is_the_divergence_from_the_posterior(device):
    model, x = made("full", device)
    q, p = model.responsibilities(x), model.mixture.responsibilities(x)
    gap = (q * (q.log() - p.log())).sum(-1)
    assert (model.log_prob(x) - model.elbo(x)).allclose(gap)


def test_training_closes_most_of_the_gap():
    model, x = made("full")
    x = torch.cat([x, x + 6])
    step = torch.optim.Adam(model.parameters(), lr=0.02)
    objective = EnumeratedObjective(model.model, model.guide)
    before = (model.log_prob(x) - model.elbo(x)).mean().item(), model.elbo(x).mean().item()
    for _ in range(300):
        step.zero_grad()
        objective(x)["loss"].backward()
        step.step()
    assert (model.log_prob(x) - model.elbo(x)).mean() < 0.2 * before[0]
    assert model.elbo(x).mean() > before[1] + 1


def test_a_network_that_is_certain_gives_no_nan():
    model, x = made("full")
    model.net.layers[-1].bias.data[:] = torch.tensor([1e4, 0, 0])
    assert model.elbo(x).isfinite().all()
    assert model.elbo(x).allclose(model.mixture.log_joint(x)[:, 0])


@pytest.mark.filterwarnings("ignore:[^a-z]*z:UserWarning")  # that Trace_ELBO samples what could be summed
@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceEnum_ELBO(max_plate_nesting=1)])
def test_stock_svi_trains_it(elbo):
    pyro.clear_param_store()
    model, x = made("full")
    before = model.net.layers[0].weight.detach().clone()
    svi = SVI(model.model, model.guide, Adam({"lr": 0.01}), elbo)
    losses = [svi.step(x) for _ in range(5)]
    pyro.clear_param_store()
    assert all(abs(loss) < float("inf") for loss in losses)
    assert not model.net.layers[0].weight.equal(before)


def test_dreams_are_the_mixture_s():
    model, _ = made("full", dtype=torch.float32)
    assert model.model(size=7).shape == (7, 2)


def test_refusals():
    with pytest.raises(ValueError, match="sizes must be positive"):
        AmortisedMixture(mixture=KMeans(dim=2, components=2), shape=())
