# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The discretised logistic is exact: against SciPy, against sixty decimal digits, and at every number of levels."""

from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import logistic

from pyro_dgm.distributions import DiscretizedLogistic, DiscretizedLogisticMixture, level_distribution
from pyro_dgm.distributions.discretized_logistic import discretized_logistic

LEVELS = [2, 17, 256, 65536]
PARAMETERS = [(0.1, -1.0), (0.3, -7.0), (1.5, -2.0), (-40.0, 3.0), (0.0, 7.0), (1.0, -5.0), (1e4, -7.0)]
EXACT = Context(prec=60, Emin=-(10**17), Emax=10**17)


def digits(level, loc, log_scale, levels):
    """Log p(level) and its derivatives by loc and log_scale, from the definition, in sixty digits."""
    with localcontext(EXACT):
        y, h = Decimal(2 * level - levels + 1) / (levels - 1), Decimal(1) / (levels - 1)
        loc, scale = Decimal(loc), Decimal(log_scale).exp()
        sign = 1
        if y > loc:  # the mirror image: two numbers close to one would lose their difference
            sign, level, y, loc = -1, levels - 1 - level, -y, -loc
        a, b = (y + h - loc) / scale, (y - h - loc) / scale
        below, above = 1 / (1 + (-a).exp()), 1 / (1 + (-b).exp())
        slope_a, slope_b = below * (1 - below), above * (1 - above)
        if level == 0:
            above, slope_b = Decimal(0), Decimal(0)
        if level == levels - 1:
            below, slope_a = Decimal(1), Decimal(0)
        p = below - above
        by_loc = sign * (slope_b - slope_a) / (p * scale)
        return float(p.ln()), float(by_loc), float((b * slope_b - a * slope_a) / p)


def with_gradients(level, loc, log_scale, levels, dtype):
    parameters = [torch.tensor(value, dtype=dtype, requires_grad=True) for value in (loc, log_scale)]
    log_prob = discretized_logistic(torch.tensor(level, dtype=dtype), *parameters, levels)
    return [value.item() for value in (log_prob, *torch.autograd.grad(log_prob, parameters))]


def half_precise(low, high):
    """Numbers that float32 holds exactly, so that both sides score the same parameters."""
    return st.floats(low, high, width=32)


@st.composite
def levels_and_a_level(draw):
    levels = draw(st.one_of(st.sampled_from(LEVELS), st.integers(2, 65536)))
    return levels, draw(st.one_of(st.sampled_from([0, levels - 1, levels // 2]), st.integers(0, levels - 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(levels_and_a_level(), half_precise(-100, 100), half_precise(-10, 10))
def test_equals_the_definition_to_the_precision_of_its_dtype(dtype, levels_and_level, loc, log_scale):
    levels, level = levels_and_level
    exact = digits(level, loc, log_scale, levels)
    found = with_gradients(level, loc, log_scale, levels, dtype)
    # Rounding of the standardised distance is inherent: 1 ulp of (y - loc) / s, and of log(width).
    scale = np.exp(-log_scale)
    error = 8 * torch.finfo(dtype).eps * ((2 + abs(loc)) * scale + np.log(levels) + abs(log_scale) + 1)
    assert found[0] == pytest.approx(exact[0], abs=error)
    assert found[1] == pytest.approx(exact[1], abs=error * scale)
    assert found[2] == pytest.approx(exact[2], abs=error * (1 + (2 + abs(loc)) * scale))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("loc", "log_scale"), PARAMETERS)
def test_sums_to_one_at_any_number_of_levels(loc, log_scale, levels):
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-10)):
        p = DiscretizedLogistic(torch.tensor(loc, dtype=dtype), torch.tensor(log_scale, dtype=dtype), levels=levels)
        total = p.log_prob(p.enumerate_support()).double().exp().sum()
        assert total.item() == pytest.approx(1, abs=tolerance * max(1, np.exp(-log_scale) / 1000))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("loc", "log_scale"), PARAMETERS)
def test_equals_differences_of_the_distribution_function_of_scipy(loc, log_scale, levels):
    k = np.unique(np.concatenate([np.arange(min(levels, 300)), levels - 1 - np.arange(min(levels, 300))]))
    edges = np.stack([2.0 * k - levels, 2.0 * k - levels + 2]) / (levels - 1)
    right = edges.mean(0) > loc  # there the distribution function is close to one, and its complement is not
    edges[0, k == 0], edges[1, k == levels - 1] = -np.inf, np.inf
    tails = logistic(loc, np.exp(log_scale))
    below, above = tails.cdf(edges), tails.sf(edges)
    probability = np.where(right, above[0] - above[1], below[1] - below[0])
    p = DiscretizedLogistic(*torch.tensor([loc, log_scale], dtype=torch.float64), levels=levels)
    log_prob = p.log_prob(torch.from_numpy(k)).numpy()
    np.testing.assert_allclose(np.exp(log_prob), probability, rtol=0, atol=1e-12)
    # The difference of SciPy's two numbers is good to their last digit only.
    larger = np.where(right, above[0], below[1])
    clear = (probability > 1e-4 * larger) & (probability > 1e-300)
    np.testing.assert_allclose(log_prob[clear], np.log(probability[clear]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_stay_finite_far_outside(levels, device):
    loc = torch.tensor([-1e6, -1e3, -1.0, 0.0, 1.0, 1e3, 1e6], device=device).unsqueeze(-1).requires_grad_()
    log_scale = torch.tensor([-70.0, -7.0, 0.0, 7.0, 70.0], device=device).requires_grad_()
    for level in (0, 1, levels // 2, levels - 1):
        log_prob = discretized_logistic(torch.tensor(float(level), device=device), loc, log_scale, levels)
        assert log_prob.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(log_prob.sum(), (loc, log_scale)))


@pytest.mark.parametrize("levels", LEVELS)
def test_the_tail_is_that_of_the_table(levels):
    p = DiscretizedLogistic(torch.tensor(0.2).double(), torch.tensor(-1.5).double(), levels=levels)
    tail = p.log_prob(p.enumerate_support()).exp().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(p.at_least(torch.arange(1, levels).double()), tail[1:], rtol=1e-10, atol=1e-10)


def test_sums_over_levels_in_chunks(monkeypatch):
    p = DiscretizedLogisticMixture(*torch.randn(3, 2, 3, 4).double(), levels=256)
    whole = p.mean, p.variance, p.entropy()
    monkeypatch.setattr(level_distribution, "CHUNK", 100)
    seen, at_least = [], p.at_least
    monkeypatch.setattr(p, "at_least", lambda level: seen.append(len(level)) or at_least(level))
    torch.testing.assert_close((p.mean, p.variance, p.entropy()), whole)
    assert max(seen) * 2 * 3 * 4 <= 100
    assert sum(seen) == 2 * 255  # the variance asks for the mean too


def test_sixteen_bit_means_of_many_elements():
    loc = torch.linspace(-1.5, 1.5, 500)
    p = DiscretizedLogistic(loc, torch.tensor(-4.0), levels=65536)
    inside = loc.abs() < 0.8
    torch.testing.assert_close(p.mean[inside], ((loc + 1) / 2 * 65535)[inside], rtol=1e-4, atol=0)


def test_one_component_is_no_mixture():
    loc, log_scale = torch.randn(2, 3, 2).double()
    one = DiscretizedLogistic(loc, log_scale, levels=17)
    mixture = DiscretizedLogisticMixture(torch.randn(3, 2, 1).double(), loc[..., None], log_scale[..., None], levels=17)
    x = one.sample((5,))
    torch.testing.assert_close(mixture.log_prob(x), one.log_prob(x))
    torch.testing.assert_close(mixture.mean, one.mean)


def test_a_mixture_is_the_weighted_sum_of_its_components():
    logits, loc, log_scale = torch.randn(3, 2, 5).double()
    mixture = DiscretizedLogisticMixture(logits, loc, log_scale, levels=256)
    components = DiscretizedLogistic(loc, log_scale, levels=256)
    x = mixture.enumerate_support()
    weighted = logits.softmax(-1) * components.log_prob(x.unsqueeze(-1)).exp()
    torch.testing.assert_close(mixture.log_prob(x).exp(), weighted.sum(-1))


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_levels_must_be_two_at_least(levels):
    with pytest.raises(ValueError, match=f"DiscretizedLogistic got levels={levels}"):
        DiscretizedLogistic(0.0, 0.0, levels=levels)
    with pytest.raises(ValueError, match=f"DiscretizedLogisticMixture got levels={levels}"):
        DiscretizedLogisticMixture(*torch.zeros(3, 2), levels=levels)


def test_a_mixture_needs_a_dimension_of_components():
    with pytest.raises(ValueError, match=r"got parameters of shape \(\).*DiscretizedLogistic"):
        DiscretizedLogisticMixture(*torch.zeros(3), levels=2)


def test_bytes_are_no_larger_levels():
    """A byte of 44 must not pass for a level of 300 modulo 256."""
    p = DiscretizedLogistic(torch.tensor(0.0), torch.tensor(0.0), levels=300)
    x = torch.arange(256)
    assert torch.equal(p.log_prob(x.to(torch.uint8)), p.log_prob(x))
