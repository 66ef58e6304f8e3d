# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed importance sampling bounds log p(x) from below, reverse annealing from above, and they meet."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dgm.evaluate import ais, bdmc, sandwich
from tests.oracles import LinearGaussian, not_above, within


class Dreaming(LinearGaussian):
    """The linear-Gaussian model, which also dreams."""

    def model(self, x: Tensor | None = None, *, size: int = 1) -> None:
        options = {"dtype": self.weight.dtype, "device": self.weight.device}
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.weight.shape[1], **options), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.mT, self.noise).to_event(1), obs=x)


class TwoCauses:
    """z is near -3 or 3, x is near z or near -z: a mixture of four normals, with a posterior of two modes."""

    loc = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    logits = torch.tensor([0.3, 0.0], dtype=torch.float64)

    def model(self, x: Tensor | None = None, *, size: int = 1) -> None:
        with pyro.plate("data", size if x is None else len(x)):
            prior = dist.MixtureSameFamily(dist.Categorical(logits=self.logits), dist.Normal(self.loc, 0.7))
            z = pyro.sample("z", prior)
            both = dist.Normal(torch.stack([z, -z], -1), 0.8)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(logits=both.mean.new_zeros(2)), both), obs=x)

    def log_prob(self, x: Tensor) -> Tensor:
        weights = self.logits.log_softmax(0)
        normals = dist.Normal(torch.stack([self.loc, -self.loc], -1), math.hypot(0.7, 0.8))  # (prior, sign)
        return (normals.log_prob(x[:, None, None]) + weights[:, None] - math.log(2)).logsumexp((1, 2))


def drawn(oracle: TwoCauses, size: int) -> Tensor:
    torch.manual_seed(3)
    with pyro.poutine.trace() as tracer:
        oracle.model(size=size)
    return tracer.trace.nodes["x"]["value"]


@pytest.mark.parametrize("num_steps", [2, 5, 20])
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_annealed_weights_are_unbiased(num_steps: int, start: str) -> None:
    """The weight of an annealed chain has expectation p(x), however short the chain (Neal 2001, section 2)."""
    oracle = LinearGaussian(2, 1, widen=2.0)
    x = oracle.data(3)
    found = ais(oracle.model, oracle.guide, x, num_steps=num_steps, num_chains=4000, num_leapfrog=3, start=start)
    assert within((found.log_w - oracle.log_prob(x).detach()).exp(), 1.0)


@pytest.mark.parametrize("num_steps", [1, 4, 15])
def test_annealing_bounds_log_p_from_below(num_steps: int) -> None:
    """The logarithm of an unbiased estimate of p(x) is a stochastic lower bound on log p(x), by Jensen."""
    oracle = TwoCauses()
    x = drawn(oracle, 200)
    found = ais(oracle.model, None, x, num_steps=num_steps, num_chains=3, num_leapfrog=3)
    assert not_above(-found.nll.values - oracle.log_prob(x), 0.0)


def test_more_temperatures_and_more_chains_tighten_the_bound() -> None:
    """The bound rises to log p(x) with the number of temperatures and of chains."""
    oracle = Dreaming(6, 3)
    x = oracle.data(100)
    above = {
        (steps, chains): ais(oracle.model, None, x, num_steps=steps, num_chains=chains, num_leapfrog=5).nll.values
        + oracle.log_prob(x).detach()
        for steps, chains in [(3, 2), (12, 2), (50, 2), (12, 16)]
    }
    means = {key: value.mean() for key, value in above.items()}
    assert means[3, 2] > means[12, 2] > means[50, 2]
    assert means[12, 16] < means[12, 2]
    assert all(not_above(-value, 0.0) for value in above.values())


@pytest.mark.parametrize("num_steps", [3, 10, 40])
def test_reverse_annealing_from_the_posterior_bounds_log_p_from_above(num_steps: int) -> None:
    """1 / w of a chain that runs backwards from an exact posterior sample has expectation 1 / p(x): an upper bound."""
    oracle = LinearGaussian(2, 1)
    x = oracle.data(1).expand(2000, 2)
    mean, covariance = (part.detach() for part in oracle.posterior(x))
    samples = {"z": dist.MultivariateNormal(mean, covariance).sample()}
    found = sandwich(
        oracle.model,
        None,
        x,
        posterior_samples=samples,
        num_steps=num_steps,
        num_chains=2,
        num_leapfrog=3,
        batch_size=2000,
    )
    exact = oracle.log_prob(x).detach()
    assert within((found.lower.values + exact).exp(), 1.0)  # the mean of two 1 / w, times p(x)
    assert not_above(found.lower.values + exact, 0.0)
    assert not_above(-found.upper.values - exact, 0.0)


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_the_sandwich_closes_around_the_truth(start: str) -> None:
    """With enough temperatures bidirectional Monte Carlo tells the log-likelihood of dreamt data to within 0.1 nats."""
    oracle = Dreaming(widen=2.0)
    found = bdmc(oracle.model, oracle.guide, size=40, start=start, num_steps=150, num_chains=8, num_leapfrog=8)
    assert abs(found.gap.mean) < 0.1
    assert abs(found.gap.mean) < 5 * found.gap.standard_error + 0.02


def test_the_sandwich_contains_a_likelihood_of_many_modes() -> None:
    """The bounds hold in expectation where the posterior has several modes, which chains from the prior all reach."""
    oracle = TwoCauses()
    with pyro.poutine.trace() as tracer:
        oracle.model(size=300)
    x, z = (tracer.trace.nodes[name]["value"] for name in ("x", "z"))
    found = sandwich(oracle.model, None, x, posterior_samples={"z": z}, num_steps=30, num_chains=6, num_leapfrog=4)
    exact = oracle.log_prob(x)
    assert not_above(-found.upper.values - exact, 0.0)
    assert not_above(found.lower.values + exact, 0.0)
    assert found.gap.mean < 0.3


def test_gap_of_linear_gaussian() -> None:
    """The gap bounds the error of either side: each lies on its side of log p(x), and so is no farther off."""
    oracle = Dreaming()
    x = oracle.data(300)
    mean, covariance = (part.detach() for part in oracle.posterior(x))
    samples = {"z": dist.MultivariateNormal(mean, covariance).sample()}
    found = sandwich(oracle.model, None, x, posterior_samples=samples, num_steps=10, num_chains=4)
    exact = -oracle.log_prob(x).detach()
    above, below = found.upper.values - exact, exact - found.lower.values
    assert not_above(-above, 0.0)
    assert not_above(-below, 0.0)
    assert not_above(above - found.gap.values, 0.0)
    assert not_above(below - found.gap.values, 0.0)
    assert found.gap.mean > 5 * found.gap.standard_error  # so few temperatures leave one that can be told from 0
