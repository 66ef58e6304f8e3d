# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Theorems about bounds, checked for arbitrary log-weights."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pyro_dgm.infer import elbo, iwae

log_weights = arrays(
    np.float64,
    st.tuples(st.integers(2, 8), st.integers(1, 3)),
    elements=st.floats(-500, 500),
).map(torch.from_numpy)


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
    assert torch.equal(iwae(log_w[:1]), log_w[0])
    assert torch.equal(elbo(log_w[:1]), log_w[0])


@given(log_weights, st.floats(-100, 100))
def test_bounds_move_with_the_weights(log_w, shift):
    for bound in (elbo, iwae):
        assert torch.allclose(bound(log_w + shift), bound(log_w) + shift, atol=1e-9)


@given(log_weights, st.randoms(use_true_random=False))
def test_particles_are_exchangeable(log_w, random):
    order = list(range(len(log_w)))
    random.shuffle(order)
    for bound in (elbo, iwae):
        assert torch.allclose(bound(log_w[order]), bound(log_w), atol=1e-9)


@given(log_weights)
def test_equal_weights_close_the_gap(log_w):
    same = log_w[:1].expand_as(log_w)
    assert torch.allclose(iwae(same), elbo(same), atol=1e-9)


@given(array_shapes(min_dims=1, max_dims=4, max_side=3))
def test_only_the_particles_are_reduced(shape):
    log_w = torch.zeros(shape)
    for bound in (elbo, iwae):
        assert bound(log_w).shape == shape[1:]


def test_iwae_survives_weights_far_outside_the_range_of_exp():
    log_w = torch.tensor([[-5000.0], [-5000.0 + math.log(3.0)]])
    assert torch.allclose(iwae(log_w), torch.tensor([-5000.0 + math.log(2.0)]))


def test_a_particle_of_weight_zero_counts():
    log_w = torch.tensor([[0.0], [-math.inf]])
    assert torch.allclose(iwae(log_w), torch.tensor([-math.log(2.0)]))
