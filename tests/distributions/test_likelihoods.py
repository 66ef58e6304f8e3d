# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Likelihoods are distributions over the levels they were built for, and start broad."""

import math

import pytest
import torch

from pyro_dgm.distributions import (
    BernoulliLikelihood,
    CategoricalLevels,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
)
from pyro_dgm.distributions.broad_log_scale import broad_log_scale
from tests.cases import LIKELIHOODS

STANDARD_ERRORS = 5


@pytest.fixture(params=LIKELIHOODS)
def build(request):
    return LIKELIHOODS[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_pixel_sums_to_one_over_its_levels(build, dtype, device):
    likelihood = build((2, 3)).to(device)
    pixels = likelihood.pixels(2 * torch.randn(likelihood.in_shape, dtype=dtype, device=device))
    levels = torch.arange(likelihood.levels, device=device).reshape(-1, 1, 1)
    total = pixels.log_prob(levels).double().exp().sum(0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)


def test_sample_mean_is_the_mean_that_is_scored(build, device):
    likelihood = build((2, 3)).to(device)
    p = likelihood(torch.randn(likelihood.in_shape, device=device))
    x = p.sample((5_000,))
    off = (x.double().mean(0) - p.mean).abs()
    assert (off <= STANDARD_ERRORS * (p.variance / len(x)).sqrt()).all()


def test_data_are_scored_in_the_dtype_of_their_files(build):
    likelihood = build((2, 3))
    p = likelihood(torch.randn(4, *likelihood.in_shape))
    x = p.sample().clamp(max=255)
    assert torch.equal(p.log_prob(x.to(torch.uint8)), p.log_prob(x))


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 2)], ids=str)
def test_data_of_any_shape(build, shape):
    likelihood = build(shape)
    p = likelihood(torch.randn(2, *likelihood.in_shape))
    assert p.event_shape == shape
    assert likelihood.in_shape[1:] == shape
    assert p.log_prob(p.sample()).shape == (2,)


def test_starts_broad(build):
    """Where the network says nothing, uniform data cost at most six percent more than the best code for them."""
    likelihood = build(())
    pixel = likelihood.pixels(torch.zeros(likelihood.in_shape, dtype=torch.float64))
    log_prob = pixel.log_prob(torch.arange(likelihood.levels))
    assert -log_prob.mean() < 1.06 * math.log(likelihood.levels)
    assert pixel.entropy() > 0.8 * math.log(likelihood.levels)
    assert pixel.mean.item() == pytest.approx((likelihood.levels - 1) / 2)


@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
def test_the_floor_of_the_scale_is_soft(levels):
    raw = torch.linspace(-30, 30, 200, dtype=torch.float64, requires_grad=True)
    log_scale = broad_log_scale(raw, levels)
    (slope,) = torch.autograd.grad(log_scale.sum(), raw)
    assert (slope > 0).all()
    assert (log_scale > -math.log(levels - 1) - 2).all()
    assert broad_log_scale(torch.zeros(()), levels).item() == pytest.approx(-1, abs=1e-6)


def test_every_level_can_be_nearly_certain():
    """At the floor, a pixel puts 99.9 % of its mass in any one level that the network chooses."""
    likelihood = DiscretizedLogisticLikelihood((), 256)
    level = torch.arange(256)
    loc = level.double() * 2 / 255 - 1
    p = likelihood(torch.stack([loc, torch.full_like(loc, -100.0)], dim=-1))
    assert (p.log_prob(level) > math.log(0.998)).all()


@pytest.mark.parametrize("raw", [-1e4, -100.0, 30.0, 100.0, 1e4])
@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_any_raw_numbers_give_a_distribution(levels, raw):
    """From certain to flat: the levels sum to one, and the gradient is finite."""
    numbers = torch.tensor([0.1, raw], dtype=torch.float64, requires_grad=True)
    log_prob = DiscretizedLogisticLikelihood((), levels)(numbers).log_prob(torch.arange(levels).unsqueeze(-1))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)
    seen = log_prob[log_prob > -1e6]
    assert torch.autograd.grad(seen.sum(), numbers)[0].isfinite().all()


def test_components_of_a_mixture_start_apart():
    likelihood = DiscretizedLogisticMixtureLikelihood((2,), 256, components=4)
    p = likelihood.pixels(torch.zeros(12, 2))
    torch.testing.assert_close(p.loc, torch.tensor([-0.75, -0.25, 0.25, 0.75]).expand(2, 4))
    assert likelihood.in_shape == (12, 2)
    assert not likelihood.state_dict()


def test_the_categorical_does_not_copy_the_layout_of_the_network():
    """Logits come as (P, H, W) and are read as (H, W, P): by a view, and normalised without changing the layout."""
    p = CategoricalLikelihood((28, 20), 256).pixels(torch.randn(4, 256, 28, 20))
    assert isinstance(p, CategoricalLevels)
    assert p.logits.movedim(-1, -3).is_contiguous()


@pytest.mark.parametrize("levels", [1, 3, 256])
def test_a_coin_flip_needs_two_levels(levels):
    with pytest.raises(ValueError, match=rf"BernoulliLikelihood got levels={levels}.*binarization=\"dynamic\".*Cat"):
        BernoulliLikelihood((2, 3), levels)


@pytest.mark.parametrize(
    "build", [CategoricalLikelihood, DiscretizedLogisticLikelihood, DiscretizedLogisticMixtureLikelihood]
)
def test_levels_and_shape_must_be_positive(build):
    with pytest.raises(ValueError, match=f"{build.__name__} got levels=1: .*at least 2"):
        build((2, 3), 1)
    with pytest.raises(ValueError, match=rf"{build.__name__} got shape=\(2, 0\): .*positive integer"):
        build((2, 0), 4)


def test_a_mixture_needs_a_component():
    with pytest.raises(ValueError, match="got components=0"):
        DiscretizedLogisticMixtureLikelihood((2, 3), 4, components=0)
