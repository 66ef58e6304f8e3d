# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The mixture of coins: counting by hand, impossible pixels, and what it makes of digits."""

import pytest
import torch
from scipy import stats

from pyro_dgm.data import Digits
from pyro_dgm.infer import EM, em
from pyro_dgm.models import BernoulliMixture


def digits():
    return (Digits().train.x > 7).long()


def by_hand(x, weights, probs, a, b):
    """One sweep, written out."""
    ones = x.flatten(1).double()
    joint = weights.log() + ones @ probs.log().T + (1 - ones) @ (1 - probs).log().T
    shares = joint.softmax(1)
    mass = shares.sum(0)
    return mass / len(x), (shares.T @ ones + a - 1) / (mass[:, None] + a + b - 2), joint.logsumexp(1)


@pytest.mark.parametrize("prior", [(1, 1), (2, 2), (1.5, 3)])
@pytest.mark.parametrize("integer", [torch.uint8, torch.int64])
def test_a_sweep_counts(prior, integer):
    x = digits()[:50, 2:6, 2:6].to(integer)
    model = BernoulliMixture(shape=(4, 4), components=4, prior=prior).double()
    weights, probs = model.weights.detach(), model.probs.detach().flatten(1)
    expected = by_hand(x, weights, probs, *prior)
    history = em(model, x, sweeps=1, tolerance=0, seed=None)
    log_prior = stats.beta.logpdf(probs.numpy(), *prior).sum()
    assert history.objectives[0] == pytest.approx((expected[2].sum().item() + log_prior) / 50, rel=1e-10)
    assert torch.allclose(model.weights, expected[0])
    assert torch.allclose(model.probs.flatten(1), expected[1])


@pytest.mark.parametrize("prior", [(1, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_learns_digits(prior, dtype, device):
    x = digits().to(device)
    model = BernoulliMixture(shape=(8, 8), components=10, prior=prior).to(device, dtype)
    history = em(model, x, sweeps=40)
    assert history.monotone, history.why
    assert history.objectives[-1] > history.objectives[0] + 0.1
    assert model.probs.shape == (10, 8, 8)
    assert model.log_prob(x).isfinite().all()
    alone = BernoulliMixture(shape=(8, 8), components=1, prior=prior).to(device, dtype)
    em(alone, x)
    assert model.log_prob(x).mean() > alone.log_prob(x).mean() + 5


def test_impossible_pixels_are_finite():
    x = torch.zeros(10, 3, dtype=torch.int64)
    model = BernoulliMixture(shape=(3,), components=2, prior=(1, 1))
    history = em(model, x)
    assert history.objectives[-1] == pytest.approx(0, abs=1e-6)
    assert model.log_prob(torch.ones(1, 3, dtype=torch.int64)).item() == pytest.approx(-3 * 36, rel=1e-3)
    assert model.log_prior() == 0


def test_empty_components_and_few_data():
    x = digits()[:3]
    for prior in ((1, 1), (2, 2)):
        model = BernoulliMixture(shape=(8, 8), components=6, prior=prior)
        history = em(model, x)
        assert history.monotone, history.why
        assert model.log_prob(x).isfinite().all()
        with torch.no_grad():
            model.logits[0] = -200.0
        kept = model.probs[0].clone()
        model.maximize(model.statistics(x))
        assert torch.allclose(model.probs[0], kept if prior == (1, 1) else torch.tensor(0.5), atol=1e-5)
        assert model.logits.isfinite().all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="at least 1"):
        BernoulliMixture(shape=(3,), components=2, prior=(0.5, 1))
    model = BernoulliMixture(shape=(3,), components=2)
    with pytest.raises(ValueError, match="needs integers"):
        model.log_prob(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="shape"):
        model.statistics(torch.zeros(2, 4, dtype=torch.int64))
    for integers in ([[0, 1, 5]], [[0, -3, 1]]):
        for way in (model.start, model.log_prob, model.model, model.guide, model.statistics, EM(model)):
            with pytest.raises(ValueError, match=r"from (0 to 5|-3 to 1): it needs 0 and 1"):
                way(torch.tensor(integers))


def test_values_are_looked_at_on_any_device(device):
    model = BernoulliMixture(shape=(3,), components=2).to(device)
    for way in (model.start, model.statistics):
        with pytest.raises(ValueError, match="from 0 to 5: it needs 0 and 1"):
            way(torch.tensor([[0, 1, 5]], device=device))


def test_without_a_prior_em_seeks_what_the_program_scores():
    """By default there is no prior, so EM's objective is the program's log-likelihood, and its maximum that of SVI."""
    x = torch.ones(10, 3, dtype=torch.int64)
    model = BernoulliMixture(shape=(3,), components=1)
    history = em(model, x)
    assert model.log_prior() == 0
    assert history.objectives[-1] == pytest.approx(model.log_prob(x).mean().item(), abs=1e-6)
    assert model.probs.min() > 1 - 1e-6
    em(held := BernoulliMixture(shape=(3,), components=1, prior=(2, 2)), x)
    assert torch.allclose(held.probs, torch.tensor(11 / 12))
