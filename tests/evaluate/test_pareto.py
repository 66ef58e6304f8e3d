# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The shape of the weights' tail against weights whose tail is known, and against SciPy's fits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import genpareto

from pyro_dgm.evaluate import Estimate, log_likelihood, pareto_k, psis
from pyro_dgm.evaluate.pareto import tail_length, tail_shape
from pyro_dgm.evaluate.weight_sums import WeightSums
from tests.oracles import LinearGaussian

log_weights = arrays(float, st.tuples(st.integers(21, 90), st.integers(1, 3)), elements=st.floats(-300, 300)).map(
    torch.from_numpy
)


def pareto_weights(k, count, size):
    """Log-weights whose distribution is Pareto with shape k."""
    return k * torch.distributions.Exponential(torch.ones((), dtype=torch.float64)).sample((count, size))


@pytest.mark.parametrize("k", [0.2, 0.5, 0.7, 1.0, 1.5])
def test_finds_the_shape_of_pareto_weights(k, device):
    found = pareto_k(pareto_weights(k, 20_000, 100).to(device))
    count = tail_length(20_000)
    asymptotic = (1 + k) / math.sqrt(count)  # the maximum likelihood estimate's standard deviation
    prior = 10 / (count + 10) * abs(0.5 - k)
    assert (found.mean() - k).abs() < prior + 5 * asymptotic / 10 + 0.02
    assert found.std() < 1.5 * asymptotic


def test_agrees_with_the_maximum_likelihood_fit_of_scipy():
    log_w = pareto_weights(0.6, 40_000, 5)
    found, count = pareto_k(log_w), tail_length(40_000)
    for column, k_hat in zip(log_w.mT, found, strict=True):
        top = column.topk(count + 1).values.exp()
        k, _, _ = genpareto.fit((top[:-1] - top[-1]).numpy(), floc=0)
        assert abs((count * k + 5) / (count + 10) - k_hat.item()) < 0.02


@given(log_weights, st.floats(-100, 100))
def test_depends_on_ratios_of_weights_only(log_w, shift):
    torch.testing.assert_close(pareto_k(log_w + shift), pareto_k(log_w), equal_nan=True, atol=1e-3, rtol=1e-3)


@given(log_weights)
def test_smoothing_keeps_order_largest_and_small_weights(log_w):
    smooth = psis(log_w)
    assert smooth.shape == log_w.shape
    assert not smooth.isnan().any()
    assert (smooth.max(0).values <= log_w.max(0).values + 1e-9).all()
    smaller = log_w.unsqueeze(0) < log_w.unsqueeze(1)
    assert (smooth.unsqueeze(0) <= smooth.unsqueeze(1) + 1e-6)[smaller].all()
    below = log_w < log_w.topk(tail_length(len(log_w)), dim=0).values[-1]
    assert torch.equal(smooth[below], log_w[below])


def test_smoothing_lowers_the_error_of_heavy_tails():
    log_w = pareto_weights(0.6, 1000, 2000)  # their mean is 1 / (1 - k)
    exact = 1 / (1 - 0.6)
    raw, smooth = ((weights.exp().mean(0) - exact).square().mean() for weights in (log_w, psis(log_w)))
    assert smooth < 0.5 * raw


def test_edges():
    flat = torch.zeros(100, 1)
    few = torch.cat([torch.zeros(3, 1), torch.full((97, 1), -math.inf)])
    none, broken = torch.full((100, 1), -math.inf), flat.clone()
    broken[3] = math.nan
    found = pareto_k(torch.cat([flat, few, none, broken], 1))
    assert found[0] == -math.inf
    assert found[1] == math.inf
    assert found[2:].isnan().all()
    assert torch.equal(psis(flat), flat)
    assert torch.equal(psis(few), few)
    assert pareto_k(torch.randn(30)).shape == ()
    with pytest.raises(ValueError, match="fewer than 21 weights"):
        pareto_k(torch.randn(20, 5))


def test_chunks_change_nothing():
    log_w = 2 * torch.randn(500, 4, dtype=torch.float64)
    sums = WeightSums(4, log_w.device, 500)
    for chunk in log_w.split(7):
        sums.add(chunk)
    torch.testing.assert_close(tail_shape(sums.largest), pareto_k(log_w))
    assert len(sums.largest) == tail_length(500) + 1


def test_a_narrow_proposal_is_found_out():
    oracles = LinearGaussian(widen=0.1), LinearGaussian(widen=1.5), LinearGaussian()
    x = oracles[0].data(30)
    narrow, wide, exact = (log_likelihood(each.model, each.guide, x, num_samples=2000) for each in oracles)
    assert narrow.untrusted > 0.5
    assert str(narrow).endswith(f"30 data, k-hat > 0.7 for {round(30 * narrow.untrusted)})")
    assert wide.k_hat.max() < 0.5
    assert wide.untrusted == 0
    assert str(wide).endswith("(IS, 2000 samples, 30 data)")
    assert (exact.k_hat == -math.inf).all()
    assert narrow.as_dict()["k_hat_above_0.7"] == narrow.untrusted
    assert exact.as_dict()["k_hat_median"] is None


def test_few_samples_have_no_shape():
    oracle = LinearGaussian()
    found = log_likelihood(oracle.model, oracle.guide, oracle.data(3), num_samples=20)
    assert found.k_hat is None
    assert found.as_dict()["k_hat_above_0.7"] is None
    undetermined = Estimate("NLL <=", torch.zeros(2), "IS, 50 samples", k_hat=torch.tensor([math.nan, 0.1]))
    assert undetermined.untrusted == 0.5
