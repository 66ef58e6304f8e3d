# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The VAE as a Pyro program, under stock Pyro and under our bounds."""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from sklearn.datasets import load_digits

from pyro_dgm.infer import ELBO, IWAE
from pyro_dgm.models import VAE
from pyro_dgm.nn import GatedConvDecoder, GatedConvEncoder
from tests.cases import MODELS, SMALL


def digits(levels, size=20):
    x = torch.from_numpy(load_digits().images[:size]).long()
    return (x > 7).long() if levels == 2 else x


def make(name):
    vae = MODELS[name]()
    return vae, digits(vae.levels)


ELBOS = [Trace_ELBO(), TraceGraph_ELBO(), TraceMeanField_ELBO(), ELBO(), IWAE(3)]


@pytest.mark.parametrize("elbo", ELBOS, ids=lambda elbo: type(elbo).__name__)
@pytest.mark.parametrize("name", MODELS)
def test_it_trains_under_every_elbo(name, elbo):
    vae, x = make(name)
    before = copy.deepcopy(vae.state_dict())
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(30)]
    assert losses[-1] < losses[0]
    moved = [name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])]
    assert set(moved) == set(dict(vae.named_parameters()))


@pytest.mark.parametrize("name", MODELS)
def test_it_dreams_what_it_scores(name, device):
    vae, x = make(name)
    vae, x = vae.to(device), x.to(device)
    dream = vae.model(size=7)
    assert dream.shape == (7, 8, 8)
    assert not dream.is_floating_point()
    assert dream.device == x.device
    assert vae.model(x) is x
    assert vae.guide(dream).shape == (7, 5)
    assert dream.min() >= 0
    assert dream.max() < vae.levels


@pytest.mark.parametrize("name", MODELS)
def test_predictive_and_condition(name):
    vae, x = make(name)
    samples = Predictive(vae.model, guide=vae.guide, num_samples=3)(x)
    assert samples["z"].shape == (3, 20, 5)
    prior = Predictive(vae.model, num_samples=3)(size=4)
    assert prior["x"].shape == (3, 4, 8, 8)
    z = torch.zeros(4, 5)
    trace = poutine.trace(poutine.condition(vae.model, {"z": z})).get_trace(size=4)
    assert torch.equal(trace.nodes["z"]["value"], z)
    conditioned = poutine.trace(poutine.condition(vae.model, {"x": x})).get_trace(size=20)
    assert conditioned.nodes["x"]["is_observed"]


@pytest.mark.parametrize("name", MODELS)
def test_particles_pass_through(name):
    vae, x = make(name)
    assert IWAE(4).per_datum(vae.model, vae.guide, x).shape == (20,)
    assert vae.likelihood(torch.zeros(3, 2, 5)).log_prob(x[:2]).shape == (3, 2)


def test_particles_pass_through_convolutions():
    vae = VAE(
        shape=(28, 28),
        levels=2,
        latent=4,
        encoder=partial(GatedConvEncoder, width=2, features=8),
        decoder=partial(GatedConvDecoder, width=2),
    )
    x = torch.randint(0, 2, (3, 28, 28))
    values = IWAE(5).per_datum(vae.model, vae.guide, x)
    assert values.shape == (3,)
    vae.zero_grad()
    values.sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_particles_one_by_one_or_at_once_are_the_same():
    vae, x = make("VAE")
    z = vae.posterior(x).sample((3,))
    at_once = vae.likelihood(z).log_prob(x)
    one_by_one = torch.stack([vae.likelihood(z[k]).log_prob(x) for k in range(3)])
    assert torch.allclose(at_once, one_by_one, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("integer", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_and_any_float(dtype, integer):
    vae, x = make("VAE (categorical)")
    vae = vae.to(dtype)
    assert vae.guide(x.to(integer)).dtype == dtype
    assert ELBO().per_datum(vae.model, vae.guide, x.to(integer)).dtype == dtype


def test_it_agrees_with_stock_trace_elbo_under_one_seed():
    vae, x = make("VAE")
    losses = []
    for elbo in (Trace_ELBO(), ELBO()):
        torch.manual_seed(0)
        losses.append(float(elbo.loss(vae.model, vae.guide, x)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_it_deep_copies_and_pickles():
    vae, x = make("VAE (mixture prior)")
    ELBO().loss_and_grads(vae.model, vae.guide, x)
    for twin in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        losses = []
        for model in (vae, twin):
            torch.manual_seed(0)
            losses.append(ELBO().loss(model.model, model.guide, x))
        assert torch.equal(*losses)


def test_two_of_a_kind_do_not_share_weights():
    first, x = make("VAE")
    second, _ = make("VAE")
    losses = []
    for vae in (first, second):
        loss = ELBO()(vae.model, vae.guide)
        optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
        before = loss(x).item()
        for _ in range(20):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
        losses.append(loss(x).item() < before)
    assert losses == [True, True]
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 8, 8), "needs integers"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), "needs integers"),
        (torch.zeros(3, 8, 7, dtype=torch.long), "of shape"),
        (torch.zeros(8, 8, dtype=torch.long), "of shape"),
        (torch.zeros(3, 64, dtype=torch.long), "of shape"),
    ],
)
def test_wrong_data_are_refused(x, message):
    vae, _ = make("VAE")
    for program in (vae.model, vae.guide):
        with pytest.raises(ValueError, match=message):
            program(x)


def test_values_outside_the_levels_are_refused():
    for name in ("VAE", "VAE (categorical)", "VAE (discretised logistic)"):
        vae, x = make(name)
        with pytest.raises(ValueError, match="support"):
            ELBO().loss(vae.model, vae.guide, x + 17)


@pytest.mark.parametrize("sizes", [{"latent": 0}, {"shape": ()}, {"shape": (8, 0)}])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be positive"):
        VAE(**{**SMALL, "levels": 2, **sizes})


def test_one_level_is_no_data():
    with pytest.raises(ValueError, match="levels"):
        VAE(**SMALL, levels=1)
