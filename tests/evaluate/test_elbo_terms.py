# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The negative ELBO is the sum of its parts, and its KL terms agree with their closed form."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import elbo_terms
from pyro_dgm.infer import log_weights
from tests.evaluate.stories import Story, digits
from tests.oracles import LinearGaussian


def test_parts_sum_to_the_whole_and_to_the_log_weights():
    story = Story().eval()
    x, _ = digits(30)
    found = elbo_terms(story.model, story.guide, x, num_samples=4, seed=9)
    parts = found.reconstruction.values + sum(term.values for term in found.kl.values())
    assert torch.equal(found.negative_elbo.values, parts)
    assert set(found.kl) == {"z"}
    torch.manual_seed(9)
    elbo = log_weights(story.model, story.guide, x, particles=4).log_w.mean(0).detach().double()
    torch.testing.assert_close(found.negative_elbo.values, -elbo, rtol=1e-5, atol=1e-3)


def test_kl_agrees_with_its_closed_form():
    story = Story().eval()
    x, _ = digits(100)
    found = elbo_terms(story.model, story.guide, x, num_samples=200, max_elements=10**6).kl["z"]
    q = story.posterior(x)
    exact = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(3), 1.0)).sum(-1).detach().double()
    difference = found.values - exact
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(100)
    assert difference.std() < 0.5


def test_negative_elbo_exceeds_the_nll_by_the_gap():
    oracle = LinearGaussian(widen=2.0)
    x = oracle.data(500)
    gap = elbo_terms(oracle.model, oracle.guide, x).negative_elbo.values + oracle.log_prob(x).detach()
    assert abs(gap.mean() - (1 - math.log(2))) < 5 * gap.std() / math.sqrt(500)


def test_chunks_do_not_change_the_sum():
    oracle = LinearGaussian()
    x = oracle.data(9)
    found = elbo_terms(oracle.model, oracle.guide, x, num_samples=7, batch_size=2, max_elements=8)
    torch.testing.assert_close(found.negative_elbo.values, -oracle.log_prob(x).detach())


def test_a_hierarchy_has_one_kl_per_site_and_an_auxiliary_variable_its_own():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Normal(z1, 2.0).to_event(1), obs=-x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Normal(x.new_zeros(()), 1.0), infer={"is_auxiliary": True})
            z1 = pyro.sample("z1", dist.Normal(x / 2, 1.0).to_event(1))
            pyro.sample("z2", dist.Normal(z1 / 2, 1.0).to_event(1))

    found = elbo_terms(model, guide, torch.randn(5, 2), num_samples=3)
    assert set(found.kl) == {"u", "z1", "z2"}
    whole = found.reconstruction.values + sum(term.values for term in found.kl.values())
    torch.testing.assert_close(found.negative_elbo.values, whole)


def test_prints_every_part():
    story = Story()
    found = elbo_terms(story.model, story.guide, digits(10)[0])
    lines = str(found).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["-ELBO", "reconstruction", "KL(z)"]
    assert all(line.endswith("nats (MC, 1 sample, 10 images)") for line in lines)
    assert json.loads(json.dumps(found.as_dict()))["kl"]["z"]["mean"] == pytest.approx(found.kl["z"].mean)
