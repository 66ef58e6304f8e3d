# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The spline is the paper's formula, increasing, smooth, exactly invertible, and finite for all numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq

from pyro_dgm.transforms.rational_quadratic import RationalQuadratic

SPLINES = [
    RationalQuadratic(),
    RationalQuadratic(2, 1),
    RationalQuadratic(3, 0.5, max_factor=3),
    RationalQuadratic(bins=5, bound=3.0, min_bin=0.1),
]


def knots(spline, raw):
    """Places, heights and slopes of all knots, as lists of numbers, from the raw numbers of one element."""
    raw = [float(value) for value in raw]
    bins, lists = spline.bins, []
    for logits in (raw[:bins], raw[bins : 2 * bins]):
        top = max(logits)
        total = sum(math.exp(value - top) for value in logits)
        at = [-spline.bound]
        for value in logits:
            share = spline.min_bin + (1 - bins * spline.min_bin) * math.exp(value - top) / total
            at.append(at[-1] + 2 * spline.bound * share)
        lists.append(at)
    x, y = lists
    chord = [(y[k + 1] - y[k]) / (x[k + 1] - x[k]) for k in range(bins)]
    limit = math.log(spline.max_factor)
    slopes = [1.0]
    for k, value in enumerate(raw[2 * bins :]):
        slopes.append(2 / (1 / chord[k] + 1 / chord[k + 1]) * math.exp(limit * math.tanh(value / limit)))
    return x, y, [*slopes, 1.0]


def paper(spline, at, raw):
    """Value and derivative by equations 4 and 5 of the paper, for one number."""
    if abs(at) >= spline.bound:
        return at, 1.0
    x, y, d = knots(spline, raw)
    k = max(k for k in range(spline.bins) if x[k] <= at)
    width, height = x[k + 1] - x[k], y[k + 1] - y[k]
    s, xi = height / width, (at - x[k]) / width
    beta = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
    value = y[k] + height * (s * xi**2 + d[k] * xi * (1 - xi)) / beta
    slope = s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2) / beta**2
    return value, slope


def some(spline, n=200, scale=2.0, dtype=torch.float64):
    """Numbers within and without the bound, and raw numbers."""
    x = 1.3 * spline.bound * (2 * torch.rand(n, dtype=dtype) - 1)
    return x, scale * torch.randn(n, spline.size, dtype=dtype)


@pytest.mark.parametrize("spline", SPLINES, ids=repr)
def test_it_is_the_formula_of_the_paper(spline):
    x, raw = some(spline)
    expected = torch.tensor([paper(spline, float(a), r) for a, r in zip(x, raw, strict=True)], dtype=x.dtype)
    y, logdet = spline.forward_and_logdet(x, raw)
    torch.testing.assert_close(y, expected[:, 0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(logdet, expected[:, 1].log(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("spline", SPLINES, ids=repr)
def test_the_inverse_is_the_number_that_a_root_finder_finds(spline):
    y, raw = some(spline, n=50)
    x, logdet = spline.inverse_and_logdet(y, raw)
    for b, r, a, log_slope in zip(y.tolist(), raw, x.tolist(), logdet.tolist(), strict=True):
        ends = (-2 * spline.bound, 2 * spline.bound)
        root = brentq(lambda at, b=b, r=r: paper(spline, at, r)[0] - b, *ends, xtol=1e-14, rtol=1e-14)
        assert a == pytest.approx(root, rel=1e-9, abs=1e-10)
        assert log_slope == pytest.approx(-math.log(paper(spline, root, r)[1]), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("spline", SPLINES, ids=repr)
@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients_are_those_of_finite_differences(spline, direction):
    x, raw = some(spline, n=12, scale=1.0)
    assert torch.autograd.gradcheck(getattr(spline, direction), (x.requires_grad_(), raw.requires_grad_()))


def test_second_derivatives_are_right_too():
    spline = RationalQuadratic(3)
    x, raw = (value[:4].requires_grad_() for value in some(spline, scale=0.5))
    assert torch.autograd.gradgradcheck(lambda x, raw: spline.forward_and_logdet(x, raw)[1], (x, raw))


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_the_log_slope_is_that_of_autograd(direction):
    spline = RationalQuadratic()
    x, raw = some(spline, n=2000)
    y, logdet = getattr(spline, direction)(x.requires_grad_(), raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(logdet, slope.log(), rtol=1e-6, atol=1e-8)


raws = st.integers(2, 9).flatmap(
    lambda bins: arrays(float, 3 * bins - 1, elements=st.floats(-30, 30)).map(lambda raw: (bins, torch.from_numpy(raw)))
)


@given(raws)
@settings(max_examples=50, deadline=None)
def test_whatever_the_raw_numbers_it_increases_from_bound_to_bound_and_comes_back(case):
    bins, raw = case
    spline = RationalQuadratic(bins, 3)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64)
    y, logdet = spline.forward_and_logdet(x, raw.expand(len(x), -1))
    back, logdet_back = spline.inverse_and_logdet(y, raw.expand(len(x), -1))
    assert (y.diff() > 0).all()
    assert y.abs()[x.abs() < 3].max() < 3
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(logdet_back, -logdet, rtol=0, atol=1e-7)
    assert logdet.min() > math.log(2e-5)  # far from what rounding errors could make 0


@pytest.mark.parametrize("bins", [2, 3, 7, 8, 13])
def test_raw_zeros_are_the_identity(bins):
    spline = RationalQuadratic(bins)
    x, raw = torch.linspace(-6, 6, 1001), torch.zeros(1001, spline.size)
    y, logdet = spline.forward_and_logdet(x, raw)
    assert y.equal(x)
    assert logdet.equal(torch.zeros(1001))
    x, logdet = spline.inverse_and_logdet(y, raw)
    torch.testing.assert_close(x, y, rtol=0, atol=1e-6)
    torch.testing.assert_close(logdet, torch.zeros(1001), rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_outside_the_bound_nothing_changes(direction):
    spline = RationalQuadratic()
    x = torch.tensor([5.0, -5.0, 5.0001, -17.0, 1e3, -1e3, 3e38, math.inf, -math.inf])
    raw = (30 * torch.randn(len(x), spline.size)).requires_grad_()
    y, logdet = getattr(spline, direction)(x.requires_grad_(), raw)
    assert y.equal(x)
    assert logdet.equal(torch.zeros(len(x)))
    slope, by_raw = torch.autograd.grad(y.sum() + logdet.sum(), (x, raw))
    assert slope.equal(torch.ones(len(x)))
    assert not by_raw.any()


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_not_a_number_stays_one_and_harms_no_other_row(direction):
    spline = RationalQuadratic()
    x, raw = some(spline, n=3)
    before = getattr(spline, direction)(x, raw)
    x[1] = math.nan
    for was, now in zip(before, getattr(spline, direction)(x, raw), strict=True):
        assert now.isnan().tolist() == [False, True, False]
        assert now[::2].equal(was[::2])


@pytest.mark.parametrize("spline", SPLINES, ids=repr)
def test_value_and_slope_are_continuous_at_the_knots_and_at_the_bound(spline):
    _, raw = some(spline, n=1)
    places, heights, slopes = (torch.tensor(value, dtype=raw.dtype) for value in knots(spline, raw[0]))
    step = 1e-9 * spline.bound
    for x in (places - step, places, places + step):
        y, logdet = spline.forward_and_logdet(x, raw.expand(len(x), -1))
        torch.testing.assert_close(y, heights, rtol=0, atol=1e-6)
        torch.testing.assert_close(logdet, slopes.log(), rtol=0, atol=1e-5)
    for y in (heights - step, heights, heights + step):
        x, logdet = spline.inverse_and_logdet(y, raw.expand(len(y), -1))
        torch.testing.assert_close(x, places, rtol=0, atol=1e-6)
        torch.testing.assert_close(logdet, -slopes.log(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients_are_finite_exactly_at_knots_centres_and_bounds(direction, dtype):
    spline = RationalQuadratic(bins=8, bound=4.0)  # with raw zeros the knots are the integers, without rounding
    x = torch.arange(-10, 11, dtype=dtype) / 2
    raw = torch.zeros(len(x), spline.size, dtype=dtype, requires_grad=True)
    y, logdet = getattr(spline, direction)(x.requires_grad_(), raw)
    by_y = torch.autograd.grad(y.sum(), (x, raw), retain_graph=True)
    by_logdet = torch.autograd.grad(logdet.sum(), (x, raw))
    assert all(gradient.isfinite().all() for gradient in (*by_y, *by_logdet))
    torch.testing.assert_close(by_y[0], torch.ones(len(x), dtype=dtype))
    # The same as a hair beside: neither value nor slope has a corner as a function of the raw numbers.
    beside = (x * (1 - 1e-6)).detach().requires_grad_()
    y, _ = getattr(spline, direction)(beside, raw)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), raw)[0], by_y[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("spread", "tolerance"), [(1.0, 1e-3), (3.0, 1.5e-2)])
def test_single_precision_comes_back(spread, tolerance):
    spline = RationalQuadratic()
    x, raw = some(spline, n=20_000, scale=spread, dtype=torch.float32)
    y, logdet = spline.forward_and_logdet(x, raw)
    back, _ = spline.inverse_and_logdet(y, raw)
    exact_y, exact_logdet = spline.forward_and_logdet(x.double(), raw.double())
    assert (back - x).abs().max() < tolerance
    assert (y - exact_y).abs().max() < 1e-3
    assert (logdet - exact_logdet).abs().max() < 3e-2


@pytest.mark.parametrize("size", [30.0, 100.0, 1e4, 1e30])
@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_wild_raw_numbers_give_finite_values_and_gradients(direction, size):
    spline = RationalQuadratic()
    x = torch.cat([torch.linspace(-6, 6, 500), torch.tensor([1e3, -1e3])])
    for raw in (size * torch.randn(len(x), spline.size), size * torch.randn(len(x), spline.size).sign()):
        values = getattr(spline, direction)(x.requires_grad_(), raw.requires_grad_())
        gradients = torch.autograd.grad(values[0].sum() + values[1].sum(), (x, raw))
        assert all(value.isfinite().all() for value in (*values, *gradients))
        assert values[0][:-2].abs().max() <= 6
        assert values[1].abs().max() < 11


def test_slopes_at_knots_stay_within_their_factor_of_the_chords():
    spline = RationalQuadratic(bins=3, max_factor=4.0)
    flat = torch.zeros(2, spline.size, dtype=torch.float64)
    flat[0, -2:], flat[1, -2:] = 1e3, -1e3
    x, _, _ = knots(spline, flat[0])
    _, logdet = spline.forward_and_logdet(torch.tensor([x[1], x[1]], dtype=torch.float64), flat)
    torch.testing.assert_close(logdet.exp(), torch.tensor([4.0, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,), (5, 0, 2)])
@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_any_leading_sizes_and_layout(direction, batch):
    spline = RationalQuadratic(4)
    x, raw = torch.randn(batch), torch.randn(*batch, spline.size)
    strided = torch.randn(*batch, 2 * spline.size)[..., ::2].copy_(raw)
    results = getattr(spline, direction)(x, raw)
    assert [value.shape for value in results] == [batch, batch]
    flat = getattr(spline, direction)(x.flatten(), raw.reshape(-1, spline.size) if x.numel() else raw.flatten(0, -2))
    for value, again, rows in zip(results, getattr(spline, direction)(x, strided), flat, strict=True):
        assert value.equal(again)
        assert value.flatten().equal(rows)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_it_traces_without_a_device_under_vmap_and_in_one_graph(direction):
    spline = RationalQuadratic()
    x, raw = some(spline, n=6)
    function = getattr(spline, direction)
    y, logdet = function(x, raw)
    nowhere = function(x.to("meta"), raw.to("meta"))
    assert [value.shape for value in nowhere] == [(6,), (6,)]
    torch.compiler.reset()
    for values in (torch.vmap(function)(x, raw), torch.compile(function, fullgraph=True, backend="eager")(x, raw)):
        torch.testing.assert_close(values, (y, logdet))
    slopes = torch.vmap(torch.func.grad(lambda x, raw: function(x, raw)[0]))(x, raw)
    torch.testing.assert_close(slopes.log(), logdet)


def test_half_precision_raw_numbers_are_computed_with_in_the_precision_of_x():
    spline = RationalQuadratic()
    x, raw = some(spline, dtype=torch.float32)
    y, logdet = spline.forward_and_logdet(x, raw.bfloat16())
    assert y.dtype is logdet.dtype is torch.float32
    torch.testing.assert_close((y, logdet), spline.forward_and_logdet(x, raw.bfloat16().float()))


@pytest.mark.parametrize(
    "options", [{"bins": 1}, {"bins": 100}, {"bound": 0.0}, {"bound": math.nan}, {"max_factor": 1}, {"min_bin": 0.0}]
)
def test_options_out_of_range_are_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"RationalQuadratic\(.*{name}={value}.* it needs bins >= 2"):
        RationalQuadratic(**options)


def test_it_prints_its_options_and_equals_its_like():
    assert repr(RationalQuadratic(4)) == "RationalQuadratic(bins=4, bound=5.0, min_bin=0.01, max_factor=10.0)"
    assert RationalQuadratic(4) == RationalQuadratic(4) != RationalQuadratic(5)
    assert RationalQuadratic(4).size == 11
