# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Theorems about bounds, checked for arbitrary log-weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pyro_dgm.infer import ciwae, cubo, elbo, iwae, miwae, renyi
from pyro_dgm.infer.gradients import normalized

log_weights = arrays(
    np.float64,
    st.tuples(st.integers(2, 8), st.integers(1, 3)),
    elements=st.floats(-500, 500),
).map(torch.from_numpy)


orders = st.floats(-8, 8)

# Every bound as a function of the weights alone, for any number of particles.
ALL = {
    "ciwae": lambda log_w: ciwae(log_w, 0.3),
    "cubo": cubo,
    "cubo of order 1": lambda log_w: cubo(log_w, 1),
    "cubo of order 3.5": lambda log_w: cubo(log_w, 3.5),
    "elbo": elbo,
    "iwae": iwae,
    "miwae, one group": lambda log_w: miwae(log_w, 1),
    "miwae, groups of one": lambda log_w: miwae(log_w, len(log_w)),
    "renyi, -2": lambda log_w: renyi(log_w, -2),
    "renyi, 0.5": lambda log_w: renyi(log_w, 0.5),
    "renyi, 1 - 1e-9": lambda log_w: renyi(log_w, 1 - 1e-9),
    "renyi, 4": lambda log_w: renyi(log_w, 4),
}


@given(log_weights)
def test_iwae_lies_between_elbo_and_the_best_particle(log_w):
    assert (elbo(log_w) <= iwae(log_w) + 1e-9).all()
    assert (iwae(log_w) <= log_w.max(0).values + 1e-9).all()


@given(log_weights)
def test_more_particles_never_loosen(log_w):
    fewer = [iwae(torch.cat([log_w[:k], log_w[k + 1 :]])) for k in range(len(log_w))]
    assert (torch.stack(fewer).mean(0) <= iwae(log_w) + 1e-9).all()


@given(log_weights)
def test_one_particle_is_the_elbo(log_w):
    for bound in ALL.values():
        assert torch.allclose(bound(log_w[:1]), log_w[0], rtol=1e-12)
    assert torch.equal(iwae(log_w[:1]), log_w[0])
    assert torch.equal(elbo(log_w[:1]), log_w[0])


@given(log_weights, st.floats(-100, 100))
def test_bounds_move_with_the_weights(log_w, shift):
    for bound in ALL.values():
        assert torch.allclose(bound(log_w + shift), bound(log_w) + shift, atol=1e-9)


@given(log_weights, st.randoms(use_true_random=False))
def test_particles_are_exchangeable(log_w, random):
    order = list(range(len(log_w)))
    random.shuffle(order)
    for bound in ALL.values():
        assert torch.allclose(bound(log_w[order]), bound(log_w), atol=1e-9)


@given(log_weights)
def test_equal_weights_close_the_gap(log_w):
    same = log_w[:1].expand_as(log_w)
    for bound in ALL.values():
        assert torch.allclose(bound(same), elbo(same), atol=1e-9)


@given(array_shapes(min_dims=1, max_dims=4, max_side=3))
def test_only_the_particles_are_reduced(shape):
    log_w = torch.zeros(shape)
    for bound in ALL.values():
        assert bound(log_w).shape == shape[1:]


def test_iwae_survives_weights_far_outside_the_range_of_exp():
    log_w = torch.tensor([[-5000.0], [-5000.0 + math.log(3.0)]])
    assert torch.allclose(iwae(log_w), torch.tensor([-5000.0 + math.log(2.0)]))


def test_a_particle_of_weight_zero_counts():
    log_w = torch.tensor([[0.0], [-math.inf]])
    assert torch.allclose(iwae(log_w), torch.tensor([-math.log(2.0)]))


@given(log_weights, orders, orders)
def test_renyi_falls_as_alpha_rises(log_w, first, second):
    low, high = sorted((first, second))
    assert (renyi(log_w, high) <= renyi(log_w, low) + 1e-7).all()


@given(log_weights)
def test_renyi_passes_through_iwae_and_elbo(log_w):
    assert torch.equal(renyi(log_w, 0), iwae(log_w))
    assert torch.equal(renyi(log_w, 1), elbo(log_w))
    assert torch.allclose(renyi(log_w, 1e-12), iwae(log_w), atol=1e-6)
    spread = (log_w.max(0).values - log_w.min(0).values).max()
    for near in (1 - 1e-9, 1 + 1e-9):  # the first correction is half the variance times 1 - alpha
        assert ((renyi(log_w, near) - elbo(log_w)).abs() <= 1e-9 * spread**2 + 1e-9).all()


@given(log_weights, st.floats(0.01, 8))
def test_an_order_is_a_power_mean(log_w, alpha):
    """By brute force, where exp of what is left has the range for it."""
    centred = (log_w / 50).double()
    brute = centred.exp().pow(1 - alpha).mean(0).log() / (1 - alpha) if alpha != 1 else centred.mean(0)
    assert torch.allclose(renyi(centred, alpha), brute, atol=1e-6 / min(1.0, abs(1 - alpha) + 1e-9))


@given(log_weights)
def test_the_largest_and_smallest_weight_are_the_limits_of_renyi(log_w):
    slack = math.log(len(log_w)) / 999
    assert ((renyi(log_w, -998) - log_w.max(0).values).abs() <= slack + 1e-9).all()
    assert ((renyi(log_w, 1000) - log_w.min(0).values).abs() <= slack + 1e-9).all()


@given(log_weights, st.floats(1, 8), st.floats(1, 8))
def test_cubo_is_above_iwae_and_rises_with_its_order(log_w, first, second):
    low, high = sorted((first, second))
    assert (cubo(log_w, low) >= iwae(log_w) - 1e-9).all()
    assert (cubo(log_w, high) >= cubo(log_w, low) - 1e-9).all()
    assert torch.allclose(cubo(log_w, 1), iwae(log_w), atol=1e-9)


@given(log_weights, st.floats(0, 1))
def test_mixtures_lie_between_their_parts(log_w, mix):
    assert (elbo(log_w) - 1e-9 <= ciwae(log_w, mix)).all()
    assert (ciwae(log_w, mix) <= iwae(log_w) + 1e-9).all()
    twice = torch.cat([log_w, log_w.flip(0)])
    for groups in (1, 2, len(twice)):
        assert (elbo(twice) - 1e-9 <= miwae(twice, groups)).all()
        assert (miwae(twice, groups) <= iwae(twice) + 1e-9).all()


def test_groups_are_of_neighbours():
    log_w = torch.randn(6, 3, dtype=torch.float64)
    by_hand = (iwae(log_w[:2]) + iwae(log_w[2:4]) + iwae(log_w[4:])) / 3
    assert torch.allclose(miwae(log_w, 3), by_hand)
    assert torch.allclose(miwae(log_w, 1), iwae(log_w))
    assert torch.allclose(miwae(log_w, 6), elbo(log_w))


ZEROS = torch.tensor([[0.0, -math.inf, 1.0], [-math.inf, -math.inf, 2.0], [1.0, -math.inf, -math.inf]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_weights_of_zero_never_make_nan(name, dtype, device):
    log_w = ZEROS.to(device, dtype).requires_grad_()
    value = ALL[name](log_w)
    (gradient,) = torch.autograd.grad(value.sum(), log_w)
    assert not value.isnan().any()
    assert gradient.isfinite().all()
    assert value[1] == -math.inf
    if name in ("iwae", "cubo", "renyi, 0.5", "miwae, one group"):  # the others are zero, too, as soon as one weight is
        assert value[[0, 2]].isfinite().all()
        assert (gradient[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_bounds_survive_weights_far_outside_the_range_of_exp(name, dtype, device):
    log_w = torch.tensor([[-5e4], [-5e4 + 1], [5e4]], dtype=dtype, device=device, requires_grad=True)
    value = ALL[name](log_w)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), log_w)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_renyi_near_its_pole_is_the_elbo_to_rounding(dtype):
    log_w = torch.randn(50, 20, dtype=dtype) * 5 - 300
    exact = elbo(log_w.double())
    for power in (1e-3, 1e-5, 1e-7):
        correction = power * log_w.double().var(0, unbiased=False) / 2
        error = (renyi(log_w, 1 - power).double() - exact - correction).abs()
        assert (error < 300 * torch.finfo(dtype).eps * 2 + 3000 * power**2).all()


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_bounds_are_shares(name):
    """A bound moves with its weights, so its slopes add up to one; they agree with finite differences."""
    log_w = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(ALL[name](log_w).sum(), log_w)
    assert torch.allclose(slopes.sum(0), torch.ones(3, dtype=torch.float64))
    assert torch.autograd.gradcheck(ALL[name], log_w, atol=1e-5)


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_orders_that_are_no_numbers_are_refused(alpha):
    with pytest.raises(ValueError, match="finite"):
        renyi(torch.zeros(2, 1), alpha)
    with pytest.raises(ValueError, match="order"):
        cubo(torch.zeros(2, 1), alpha)


def test_what_is_no_bound_is_refused():
    for order in (0, -1, 0.99):
        with pytest.raises(ValueError, match="upper bound"):
            cubo(torch.zeros(2, 1), order)
    for mix in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="mix"):
            ciwae(torch.zeros(2, 1), mix)
    for groups in (0, 3, -2):
        with pytest.raises(ValueError, match="groups"):
            miwae(torch.zeros(4, 1), groups)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_rounding_loses_get_no_gradient_and_cost_nothing(dtype):
    """Their gradients would be subnormal numbers, with which processors are slow; the value is the same to the bit."""
    lost = -2.1 * abs(math.log(torch.finfo(dtype).eps))
    log_w = torch.tensor([[0.0], [lost], [lost / 3]], dtype=dtype, requires_grad=True)
    value = iwae(log_w)
    assert torch.equal(value, log_w.logsumexp(0) - math.log(3))
    (gradient,) = torch.autograd.grad(value.sum(), log_w)
    assert gradient[1] == 0
    assert gradient[2] > 0
    torch.testing.assert_close(gradient, log_w.detach().softmax(0), atol=torch.finfo(dtype).eps ** 2, rtol=1e-5)
    torch.testing.assert_close(normalized(log_w.detach()), gradient, atol=0, rtol=1e-5)
