# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A bound against its number of particles, held against a gap that is known."""

import math

import pytest
import torch

from pyro_dgm.evaluate import bound_curve
from tests.oracles import LinearGaussian


def test_the_points_of_a_curve_are_drawn_anew():
    oracle = LinearGaussian(widen=2.0)
    first, second = bound_curve(oracle.model, oracle.guide, oracle.data(50), particles=[1, 1])
    assert not torch.equal(first.values, second.values)


def test_bounds_tighten_with_particles():
    oracle = LinearGaussian(widen=2.0)
    x = oracle.data(300)
    curve = bound_curve(oracle.model, oracle.guide, x, particles=[1, 10, 1000])
    exact = -oracle.log_prob(x).detach()
    gaps = [(estimate.values - exact).mean().item() for estimate in curve]
    errors = [(estimate.values - exact).std().item() / math.sqrt(300) for estimate in curve]
    assert gaps[0] > gaps[1] > gaps[2] > -5 * errors[2]
    # KL(N(m, 2 S) || N(m, S)) in two dimensions is 1 - log 2
    assert abs(gaps[0] - (1 - math.log(2))) < 5 * errors[0]
    assert [estimate.method for estimate in curve] == ["IWAE, 1 particle", "IWAE, 10 particles", "IWAE, 1000 particles"]
    with pytest.raises(ValueError, match="at least one"):
        bound_curve(oracle.model, oracle.guide, x, particles=[])
