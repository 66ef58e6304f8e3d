# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Masks that a distribution carries, by ``fn.mask``: the closed form has the sampled term's mean, or is not taken."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_dgm.infer import kl_terms, log_weights
from pyro_dgm.infer.kl_terms import kl_terms_by_dimension
from tests.oracles import within

ONE = torch.tensor([[True, False, True], [False, True, True]])
OTHER = torch.tensor([[True, True, False], [False, True, False]])
ROWS = torch.tensor([True, False])
Q = dist.Normal(torch.tensor([[0.5, -0.2, 1.0], [0.1, 0.3, -0.8]]), 0.7)
P = dist.Normal(torch.zeros(2, 3), 1.0)

SITES = {  # posterior, prior, and the mask of the closed form; None: there is none
    "one mask": (lambda fn: fn.mask(ONE).to_event(1), lambda fn: fn.mask(ONE).to_event(1), ONE),
    "one mask of events": (lambda fn: fn.to_event(1).mask(ROWS), lambda fn: fn.to_event(1).mask(ROWS), ROWS[:, None]),
    "all": (lambda fn: fn.mask(mask=True).to_event(1), lambda fn: fn.mask(mask=True).to_event(1), True),
    "two masks": (lambda fn: fn.mask(ONE).to_event(1), lambda fn: fn.mask(OTHER).to_event(1), None),
    "two masks of events": (lambda fn: fn.to_event(1).mask(ROWS), lambda fn: fn.to_event(1).mask(~ROWS), None),
    "in and out": (lambda fn: fn.mask(ONE).to_event(1), lambda fn: fn.to_event(1).mask(ROWS), None),
    "the posterior's": (lambda fn: fn.mask(ONE).to_event(1), lambda fn: fn.to_event(1), None),
    "the prior's": (lambda fn: fn.to_event(1), lambda fn: fn.mask(ONE).to_event(1), None),
    "all and some": (lambda fn: fn.mask(mask=True).to_event(1), lambda fn: fn.mask(ONE).to_event(1), None),
    "nothing": (lambda fn: fn.mask(mask=False).to_event(1), lambda fn: fn.mask(mask=False).to_event(1), None),
}


def weigh(name, particles):
    posterior, prior, mask = SITES[name]

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", prior(P))

    def guide():
        with pyro.plate("data", 2):
            pyro.sample("z", posterior(Q))

    return log_weights(model, guide, particles=particles), mask


@pytest.mark.parametrize("name", SITES)
def test_a_masked_distribution_has_its_term_or_none(name):
    weights, _ = weigh(name, 20_000)
    difference = kl_terms(weights, analytic=True)["z"] - kl_terms(weights)["z"]
    assert within(difference, 0.0)


@pytest.mark.parametrize("name", SITES)
def test_the_closed_form_is_taken_where_both_have_one_mask(name):
    weights, mask = weigh(name, 1)
    site = weights.sites["z"]
    closed = site.closed_form()
    assert (closed is None) == (mask is None)
    if closed is not None:
        exact = torch.where(torch.as_tensor(mask), kl_divergence(Q, P), 0.0)
        assert torch.allclose(closed[0], exact.sum(-1))
        balanced = site.closed_form(prior_share=0.3)
        assert torch.allclose(balanced, closed)


@pytest.mark.parametrize("name", [name for name in SITES if "events" not in name and name != "in and out"])
@pytest.mark.parametrize("analytic", [False, True])
def test_dimensions_carry_their_masks(name, analytic):
    weights, _ = weigh(name, 3)
    parts = kl_terms_by_dimension(weights, analytic=analytic)["z"]
    assert torch.allclose(parts.sum(-1), kl_terms(weights, analytic=analytic)["z"], atol=1e-6)


def test_a_masked_point_keeps_its_density():
    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", P.mask(ONE).to_event(1))

    def guide():
        with pyro.plate("data", 2):
            point = dist.Delta(torch.ones(2, 3), log_density=torch.full((2, 3), 5.0))
            pyro.sample("z", point.mask(ONE).to_event(1))

    weights = log_weights(model, guide)
    assert weights.sites["z"].closed_form() is None
