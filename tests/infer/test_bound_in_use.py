# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds where they are used: in SVI, as modules for torch's optimisers, with handlers and decorators around a pair."""

import functools
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroSample, pyro_method
from torch import nn

from pyro_dgm.infer import ELBO, IWAE
from tests.cases import BOUNDS
from tests.oracles import LinearGaussian


class Pair(nn.Module):
    """A learned mean in the guide of a conjugate model, as plain nn.Module methods."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc.expand(len(x)), 0.5**0.5))


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_trains_in_svi(name):
    bound = BOUNDS[name](3)
    pair, x = Pair(), torch.full((50,), 2.0)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.05}), bound)
    losses = [svi.step(x) for _ in range(200)]
    assert isinstance(losses[-1], float)
    assert pair.loc.item() == pytest.approx(1.0, abs=0.1)
    assert isinstance(svi.evaluate_loss(x), float)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_a_module_for_torch_optimisers(name):
    bound = BOUNDS[name](3)
    pair, x = Pair(), torch.full((50,), 2.0)
    loss = bound(pair.model, pair.guide)
    assert [id(parameter) for parameter in loss.parameters()] == [id(pair.loc)]
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert pair.loc.item() == pytest.approx(1.0, abs=0.1)


def test_a_pair_behind_handlers_keeps_its_parameters():
    oracle, x = LinearGaussian(widen=1.5), LinearGaussian().data(4)
    plain = IWAE(3)(oracle.model, oracle.guide)
    scaled = IWAE(3)(pyro.poutine.scale(oracle.model, scale=0.5), pyro.poutine.scale(oracle.guide, scale=0.5))
    assert len(list(scaled.parameters())) == 1
    losses = []
    for module in (plain, scaled):
        torch.manual_seed(0)
        losses.append(module(x).item())
    assert losses[1] == pytest.approx(losses[0] / 2)


def test_a_used_bound_pickles_and_lives_on_the_host():
    oracle = LinearGaussian()
    with torch.device("meta"):
        bound = IWAE(2)
    assert bound.beta.device.type == "cpu"
    bound.loss(lambda x: oracle.model(x), lambda x: oracle.guide(x), oracle.data(3))
    again = pickle.loads(pickle.dumps(bound))
    assert again.loss(oracle.model, oracle.guide, oracle.data(3)).isfinite()


class Decorated(PyroModule):
    """A model whose methods carry a decorator of the user's own."""

    def halved(method):
        @functools.wraps(method)
        def run(self, *args):
            with pyro.poutine.scale(scale=0.5):
                return method(self, *args)

        return run

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    @halved
    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @halved
    @pyro_method
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def test_a_decorator_of_the_users_own_stays():
    module, x = Decorated(), torch.randn(5)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum().item()
    assert ELBO()(module.model, module.guide)(x).item() == pytest.approx(-exact / 2, rel=1e-5)
    assert ELBO().loss(module.model, module.guide, x).item() == pytest.approx(-exact / 2, rel=1e-5)


class Bayesian(PyroModule):
    """A weight that is a random variable, declared as Pyro's lazy attribute."""

    @PyroSample
    def weight(self):
        return dist.Normal(0.0, 1.0)

    @pyro_method
    def model(self, x):
        weight = self.weight
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(weight, 1.0), obs=x)


def test_a_lazy_random_weight_stays_a_random_variable():
    module, x = Bayesian(), torch.randn(4)

    def guide(x):
        pyro.sample("weight", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    exact = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 1).log_prob(x)
    assert ELBO()(module.model, guide)(x).item() == pytest.approx(-exact.item(), rel=1e-4)
