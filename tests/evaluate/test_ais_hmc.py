# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Transitions that leave their density invariant, on paths whose densities are those of the programs."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.hmc import hmc
from pyro_dgm.evaluate.latent_path import LatentPath
from tests.oracles import LinearGaussian, within


class Story:
    """Constrained, hierarchical, with a plate beside the data's: everything that a path must flatten."""

    calls = 0

    def model(self, x):
        self.calls += 1
        with pyro.plate("data", len(x), dim=-1):
            width = pyro.sample("width", dist.Gamma(x.new_tensor(3.0), x.new_tensor(2.0)))
            share = pyro.sample("share", dist.Dirichlet(x.new_tensor([1.0, 2.0, 3.0])))
            low = pyro.sample("low", dist.Uniform(-width, 2 * width))
            with pyro.plate("parts", 3, dim=-2), poutine.scale(scale=7.0):
                part = pyro.sample("part", dist.Normal(low, width))
            mean = part.mean(-2, keepdim=True) * share[..., 0]
            pyro.sample("x", dist.Normal(mean, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            width = pyro.sample("width", dist.LogNormal(0.1 * x, x.new_tensor(0.5)))
            pyro.sample("share", dist.Dirichlet(x.new_tensor([2.0, 2.0, 2.0])))
            low = pyro.sample("low", dist.Uniform(-width, 2 * width))
            with pyro.plate("parts", 3, dim=-2):
                pyro.sample("part", dist.Normal(low + x, 2.0))


def terms(program, values, x):
    """Log-probabilities of all sites of each datum at given values of shape (B, ...), by hand."""
    with pyro.plate("chains", len(next(iter(values.values()))), dim=-3):
        trace = poutine.trace(poutine.condition(program, data=values)).get_trace(x)
    trace.compute_log_prob()
    return {
        name: site["unscaled_log_prob"].movedim(-1, 1).flatten(2).sum(-1)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    }


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_a_path_is_the_programs_density_in_unconstrained_coordinates(start, device):
    story, x = Story(), torch.tensor([0.3, -1.0], dtype=torch.float64, device=device)
    path = LatentPath(story.model, story.guide if start == "guide" else None, x, chains=4)
    u = path.draw()
    assert u.shape == (4, 2, 1 + 2 + 1 + 3)
    assert u.device == x.device
    found = path(u)
    parts = path.unpack(u)
    width, low = parts["width"].exp(), parts["low"].sigmoid()
    values = {
        "width": width,
        "share": torch.distributions.biject_to(dist.constraints.simplex)(parts["share"]),
        "low": -width + 3 * width * low,
        "part": parts["part"],
    }
    to_simplex = torch.distributions.biject_to(dist.constraints.simplex)
    log_det = (width.log() + (3 * width * low * (1 - low)).log()).squeeze(1)
    log_det = log_det + to_simplex.log_abs_det_jacobian(parts["share"], values["share"]).squeeze(1)
    model = terms(story.model, values, x)
    observed = model.pop("x")
    begin = sum(model.values()) if start == "prior" else sum(terms(story.guide, values, x).values())
    end = observed if start == "prior" else sum(model.values()) + observed + log_det
    torch.testing.assert_close(found.start, begin + log_det)
    torch.testing.assert_close(found.end, end)
    torch.testing.assert_close(found.log_prob(1), sum(model.values()) + observed + log_det)
    torch.testing.assert_close(found.rise(0.2, 0.7), (found.log_prob(0.7) - found.log_prob(0.2)))


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_gradients_are_those_of_the_density(start):
    story, x = Story(), torch.tensor([0.3, -1.0], dtype=torch.float64)
    path = LatentPath(story.model, story.guide if start == "guide" else None, x, chains=3)
    u = path.draw()
    for beta in (0, 0.3, 1):
        slope = path(u).gradient(beta)
        for dim in range(u.shape[-1]):
            step = 1e-5 * torch.eye(u.shape[-1], dtype=u.dtype)[dim]
            numeric = (path(u + step).log_prob(beta) - path(u - step).log_prob(beta)) / 2e-5
            torch.testing.assert_close(slope[..., dim], numeric, atol=1e-5, rtol=1e-5)


def test_values_are_packed_as_they_are_unpacked():
    story, x = Story(), torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64)
    path = LatentPath(story.model, None, x, chains=2)
    trace = poutine.trace(story.model).get_trace(x)
    u = path.pack({name: trace.nodes[name]["value"] for name in path.latent})
    assert torch.equal(u[0], u[1])
    torch.testing.assert_close(path.unpack(u)["part"][0], trace.nodes["part"]["value"])
    torch.testing.assert_close(path.unpack(u)["width"][0, 0], trace.nodes["width"]["value"].log())
    with pytest.raises(ValueError, match="'low'"):
        path.pack({"width": x})


def test_one_run_of_the_model_for_each_leapfrog_step():
    story, x = Story(), torch.zeros(5)
    path = LatentPath(story.model, None, x, chains=2)
    state = path(path.draw())
    story.calls = 0
    hmc(path, state, torch.full((5,), 0.1), leapfrog=6)
    assert story.calls == 6


@pytest.mark.parametrize("step_size", [0.1, 0.35])
def test_leaves_the_posterior_invariant(step_size, device):
    oracle = LinearGaussian(device=device)
    x = oracle.data(2)
    mean, covariance = (part.detach() for part in oracle.posterior(x))
    with frozen(oracle.model, seed=1, device=device):
        path = LatentPath(oracle.model, None, x, chains=4000)
        path.draw()
        state = path(dist.MultivariateNormal(mean, covariance).sample((4000,)))
        for _ in range(15):
            state, accepted = hmc(path, state, x.new_full((2,), step_size), leapfrog=3)
    assert accepted.mean() < (0.99 if step_size > 0.2 else 1.0)
    centred = state.u - mean
    assert within(centred, 0.0)
    assert within(centred.unsqueeze(-1) * centred.unsqueeze(-2), covariance)


def test_leaves_a_density_on_the_way_invariant():
    oracle, beta = LinearGaussian(), 0.3
    x = oracle.data(3)
    weight = oracle.weight.detach()
    precision = torch.eye(2, dtype=x.dtype) + beta * weight.mT @ weight / oracle.noise**2
    covariance = torch.linalg.inv(precision)
    mean = beta * x @ weight / oracle.noise**2 @ covariance
    with frozen(oracle.model, seed=1):
        path = LatentPath(oracle.model, None, x, chains=3000)
        state = path(path.draw())
        for _ in range(40):  # from the prior, not from the target: this tests that it gets there
            state, _ = hmc(path, state, torch.full((3,), 0.3, dtype=x.dtype), beta=beta, leapfrog=6)
    centred = state.u - mean
    assert within(centred, 0.0)
    assert within(centred.unsqueeze(-1) * centred.unsqueeze(-2), covariance)


def test_a_proposal_that_leaves_the_numbers_is_rejected():
    oracle = LinearGaussian()
    x = oracle.data(2)
    path = LatentPath(oracle.model, None, x, chains=5)
    state = path(path.draw())
    for size in (1e300, math.inf, math.nan):
        with pyro.validation_enabled(is_validate=False):
            new, accepted = hmc(path, state, torch.tensor([size, 1e-3], dtype=x.dtype), leapfrog=4)
        assert (accepted[:, 0] == 0).all()
        assert torch.equal(new.u[:, 0], state.u[:, 0])
        assert (accepted[:, 1] > 0.9).all()
    with pytest.raises(ValueError, match="leapfrog=0"):
        hmc(path, state, x.new_ones(2), leapfrog=0)
