# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The chain draws from the posterior, starts where it is told, counts its cost and leaves the random stream alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.infer.no_u_turn import nuts


def model(x):
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(3.0, dtype=x.dtype), 3.0))
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=x.dtype), 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, scale), obs=x)


X = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def test_draws_have_the_moments_of_the_posterior():
    """Against a grid; five standard errors, for an effective sample size of a quarter of the draws."""
    posterior = nuts(model, X, samples=400, warmup=200, seed=1)
    scale, mean = torch.meshgrid(torch.linspace(0.05, 8, 400), torch.linspace(-8, 8, 400), indexing="ij")
    log_p = dist.Gamma(3.0, 3.0).log_prob(scale) + dist.Normal(0.0, 2.0).log_prob(mean)
    log_p = log_p + sum(dist.Normal(mean, scale).log_prob(x) for x in X.float())
    weight = (log_p - log_p.logsumexp((0, 1))).exp()
    for name, values in (("scale", scale), ("mean", mean)):
        first, second = (weight * values).sum(), (weight * values.square()).sum()
        error = ((second - first.square()) / 100).sqrt()
        assert abs(posterior.draws[name].mean() - first) < 5 * error
    assert posterior.draws["scale"].shape == (400,)
    assert (posterior.draws["scale"] > 0).all()


def test_a_chain_is_reproducible_counted_and_without_traces():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    start = {"scale": torch.tensor(1.0).double(), "mean": torch.tensor(2.0).double()}
    with torch.no_grad():
        one, two = (nuts(model, X, start=start, samples=5, warmup=10, seed=3) for _ in range(2))
    assert torch.get_rng_state().equal(before)
    assert one.path["mean"].equal(two.path["mean"])
    assert one.path["mean"].shape == (15,)
    assert len(one.seconds) == len(one.evaluations) == 15
    assert sorted(one.evaluations) == one.evaluations
    assert one.evaluations[-1] >= 15
    assert not list(pyro.get_param_store())


def test_it_begins_at_the_start():
    far = {"scale": torch.tensor(5.0).double(), "mean": torch.tensor(-7.0).double()}
    path = nuts(model, X, start=far, samples=1, warmup=0, max_tree_depth=1).path
    assert abs(path["mean"][0] + 7) < 5
    assert not torch.equal(path["mean"], nuts(model, X, samples=1, warmup=0, max_tree_depth=1).path["mean"])


def test_refusals():
    with pytest.raises(ValueError, match=r"without \['mean'\]"):
        nuts(model, X, start={"scale": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="samples=0"):
        nuts(model, X, samples=0)
