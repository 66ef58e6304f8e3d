# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The coin flip and the table of levels score as Pyro's do, and take more kinds of values."""

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.distributions import Bernoulli, CategoricalLevels


def test_a_coin_flip_scores_as_pyros():
    logits = torch.tensor([-200.0, -1.0, 0.0, 3.0, 200.0])
    ours, theirs = Bernoulli(logits=logits), dist.Bernoulli(logits=logits)
    x = torch.tensor([[0, 1]]).T
    assert torch.allclose(ours.log_prob(x), theirs.log_prob(x.float()), rtol=1e-6, atol=0)
    assert torch.equal(ours.log_prob(x.bool()), ours.log_prob(x))
    assert torch.equal(ours.mean, theirs.mean)


def test_a_coin_flip_draws_what_pyros_draws():
    logits = torch.randn(50)
    torch.manual_seed(1)
    ours = Bernoulli(logits=logits).sample((20,))
    torch.manual_seed(1)
    assert torch.equal(ours, dist.Bernoulli(logits=logits).sample((20,)).long())


def test_levels_score_as_pyros_categories():
    logits = torch.randn(4, 17)
    x = torch.randint(17, (3, 4))
    ours, theirs = CategoricalLevels(logits=logits), dist.Categorical(logits=logits)
    assert torch.equal(ours.log_prob(x), theirs.log_prob(x))
    assert torch.equal(ours.log_prob(x.to(torch.uint8)), theirs.log_prob(x))
    assert torch.equal(ours.log_prob(ours.enumerate_support()), theirs.log_prob(theirs.enumerate_support()))


def test_levels_have_a_mean_where_pyros_categories_have_none():
    p = CategoricalLevels(probs=torch.tensor([0.5, 0.25, 0.25]))
    assert p.mean.item() == pytest.approx(0.75)
    assert p.variance.item() == pytest.approx(0.5 * 0.75**2 + 0.25 * 0.25**2 + 0.25 * 1.25**2)


def test_a_fraction_is_no_level():
    with pytest.raises(ValueError, match="support"):
        CategoricalLevels(logits=torch.zeros(3)).log_prob(torch.tensor(1.5))
