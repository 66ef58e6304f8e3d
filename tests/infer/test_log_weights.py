# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Log-weights against an exact oracle, for every kind of plate."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.infer import iwae, log_weights
from tests.oracles import LinearGaussian

PLATES = {
    "plain": {},
    "subsampled": {"subsample": 3},
    "infinite": {"infinite": True},
    "site outside": {"outside": True},
}


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("kind", PLATES)
def test_the_exact_posterior_has_constant_weights(kind, particles, device):
    oracle = LinearGaussian(**PLATES[kind], device=device)
    x = oracle.data(7)
    weights = log_weights(oracle.model, oracle.guide, x, particles=particles)
    if kind == "subsampled":
        assert weights.log_w.shape == (particles, 3)
        assert weights.scale == pytest.approx(7 / 3)
        exact = {round(value, 4) for value in oracle.log_prob(x).tolist()}
        assert {round(value, 4) for value in weights.log_w.flatten().tolist()} <= exact
    else:
        assert weights.log_w.shape == (particles, 7)
        assert torch.allclose(weights.log_w, oracle.log_prob(x).expand(particles, 7), atol=1e-5)
    outside = weights.constants
    assert set(outside) == ({"outside"} if kind == "site outside" else set())
    if outside:
        assert outside["outside"].item() == pytest.approx(oracle.outside_log_prob(), abs=1e-9)


def test_terms_add_up(device):
    oracle = LinearGaussian(widen=2.0, device=device)
    weights = log_weights(oracle.model, oracle.guide, oracle.data(5), particles=3)
    assert set(weights.model_terms) == {"z", "x"}
    assert set(weights.guide_terms) == {"z"}
    total = weights.model_terms["z"] + weights.model_terms["x"] - weights.guide_terms["z"]
    assert torch.allclose(weights.log_w, total)
    assert torch.allclose(weights.weighted(0.0), weights.model_terms["x"])
    assert torch.allclose(weights.weighted(torch.tensor(1.0)), weights.log_w)


def test_poutine_scale_stays_out_of_the_weights():
    oracle = LinearGaussian()
    x = oracle.data(6)
    scaled = log_weights(
        pyro.poutine.scale(oracle.model, scale=0.25), pyro.poutine.scale(oracle.guide, scale=0.25), x, particles=2
    )
    assert scaled.scale == 0.25
    assert torch.allclose(scaled.log_w, oracle.log_prob(x).expand(2, 6), atol=1e-8)


def test_a_scale_for_each_datum_is_kept_beside_the_weights():
    oracle = LinearGaussian()
    x, scale = oracle.data(6), torch.arange(1.0, 7.0, dtype=torch.float64)
    weights = log_weights(
        pyro.poutine.scale(oracle.model, scale=scale), pyro.poutine.scale(oracle.guide, scale=scale), x, particles=2
    )
    assert torch.equal(weights.scale, scale)
    assert torch.allclose(weights.log_w, oracle.log_prob(x).expand(2, 6), atol=1e-8)


def test_a_mask_takes_its_data_out():
    oracle = LinearGaussian()
    x, mask = oracle.data(4), torch.tensor([True, False, True, False])
    weights = log_weights(
        pyro.poutine.mask(oracle.model, mask=mask), pyro.poutine.mask(oracle.guide, mask=mask), x, particles=3
    )
    expected = torch.where(mask, oracle.log_prob(x), 0.0)
    assert torch.allclose(weights.log_w, expected.expand(3, 4), atol=1e-8)


def test_two_nested_data_plates_stay_apart():
    def model(x):
        with pyro.plate("group", 2, dim=-2), pyro.plate("data", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("group", 2, dim=-2), pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.randn(2, 3)
    weights = log_weights(model, guide, x, particles=5)
    assert weights.log_w.shape == (5, 2, 3)
    assert torch.allclose(iwae(weights.log_w), dist.Normal(0.0, 2**0.5).log_prob(x), atol=1e-5)


def test_an_inner_plate_is_summed_within_its_datum():
    def model(x):
        with pyro.plate("data", 4, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(4, 1), 1.0))
            with pyro.plate("pixel", 3, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 4, dim=-2):
            pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 4, 0.5))

    x = torch.randn(4, 3)
    weights = log_weights(model, guide, x, particles=2)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + torch.ones(3, 3)).log_prob(x)
    assert weights.log_w.shape == (2, 4)
    assert torch.allclose(weights.log_w, exact.expand(2, 4), atol=1e-4)


def test_a_global_latent_variable_joins_its_data():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    x = torch.randn(6)
    weights = log_weights(model, guide, x, particles=3)
    exact = dist.MultivariateNormal(torch.zeros(6), torch.eye(6) + torch.ones(6, 6)).log_prob(x)
    assert weights.log_w.shape == (3,)
    assert torch.allclose(weights.log_w, exact.expand(3), atol=1e-4)


def test_an_observed_site_that_depends_on_the_latents_is_no_constant():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("sum", dist.Normal(z.sum(-1, keepdim=z.dim() > 1), 1.0), obs=torch.tensor(0.5))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    weights = log_weights(model, guide, torch.randn(4), particles=3)
    assert weights.constants == {}
    assert weights.log_w.shape == (3,)


@pytest.mark.parametrize("dims", [(-2, -1), (None, None)], ids=["explicit", "automatic"])
@pytest.mark.parametrize("particles", [1, 3])
def test_plates_may_nest_deeper_than_was_said(dims, particles):
    def model(x):
        with pyro.plate("group", 2, dim=dims[0]), pyro.plate("data", 3, dim=dims[1]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("group", 2, dim=dims[0]), pyro.plate("data", 3, dim=dims[1]):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.randn(2, 3) if dims[0] == -2 else torch.randn(3, 2)  # automatic dimensions are given from the right
    weights = log_weights(model, guide, x, particles=particles, max_plate_nesting=1)
    assert weights.nesting >= 2
    assert torch.allclose(weights.log_w, dist.Normal(0.0, 2**0.5).log_prob(x).expand(particles, *x.shape), atol=1e-5)


@pytest.mark.parametrize("size", [7, 1])
def test_a_plate_of_unknown_size_has_its_data(size):
    oracle = LinearGaussian(infinite=True)
    x = oracle.data(size)
    weights = log_weights(oracle.model, oracle.guide, x, particles=3)
    assert torch.allclose(weights.log_w, oracle.log_prob(x).expand(3, size), atol=1e-6)


@pytest.mark.parametrize("how", ["value", "mask"])
def test_a_particle_reaches_a_site_through_its_value_or_mask_too(how):
    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
        if how == "value":
            pyro.sample("y", dist.Normal(0.0, 0.1), obs=z.mean(-1, keepdim=z.dim() > 1))
        else:
            with pyro.plate("other", 3), pyro.poutine.mask(mask=z > 0):
                pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(3))

    def guide():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

    weights = log_weights(model, guide, particles=4)
    assert weights.constants == {}
    assert weights.log_w.shape == (4,)


def test_the_random_stream_is_that_of_one_run():
    oracle = LinearGaussian(widen=2.0)
    x = oracle.data(5)
    torch.manual_seed(0)
    told = log_weights(oracle.model, oracle.guide, x, particles=3, max_plate_nesting=1).log_w
    torch.manual_seed(0)
    guessed = log_weights(oracle.model, oracle.guide, x, particles=3).log_w
    assert torch.equal(told, guessed)


def test_a_guide_without_a_site_is_refused():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match=r"guide has no sample site for \['z'\]"):
        log_weights(oracle.model, lambda x: None, oracle.data(3))


def test_no_particles_are_refused():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="particles=0"):
        log_weights(oracle.model, oracle.guide, oracle.data(3), particles=0)


def test_an_empty_model_is_refused():
    with pytest.raises(ValueError, match="no pyro.sample site"):
        log_weights(lambda x: None, lambda x: None, torch.zeros(3))
