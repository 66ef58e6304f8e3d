# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Pyro's autoguides are guides like any other: for local variables, for global ones, and as messengers."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, AutoNormalMessenger

from pyro_dgm.infer import ELBO, IWAE
from tests.oracles import LinearGaussian, not_above

X = torch.tensor([0.3, -1.2, 0.8, 2.0], dtype=torch.float64)


def regression(x):
    """A global mean: log p(x) is that of one correlated normal."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


EXACT = dist.MultivariateNormal(torch.zeros(4).double(), (torch.eye(4) + 1).double()).log_prob(X)


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDiagonalNormal, AutoNormalMessenger])
@pytest.mark.parametrize("bound", [ELBO(), ELBO(4), IWAE(50)], ids=["elbo", "elbo4", "iwae50"])
def test_a_global_variable(autoguide, bound):
    guide = autoguide(regression)
    svi = SVI(regression, guide, pyro.optim.Adam({"lr": 0.02}), bound)
    for _ in range(200):
        svi.step(X)
    losses = torch.stack([bound.loss(regression, guide, X) for _ in range(100)])
    assert not_above(-losses, EXACT)
    assert (losses.mean() + EXACT).abs() < 0.1


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoNormalMessenger])
def test_local_variables_keep_their_datum(autoguide):
    oracle = LinearGaussian(latent=1)
    x = oracle.data(6)
    guide = autoguide(oracle.model)
    svi = SVI(oracle.model, guide, pyro.optim.Adam({"lr": 0.05}), ELBO())
    for _ in range(250):
        svi.step(x)
    values = torch.stack([IWAE(20).per_datum(oracle.model, guide, x) for _ in range(50)])
    assert values.shape == (50, 6)
    assert not_above(values, oracle.log_prob(x))
    assert ((values.mean(0) - oracle.log_prob(x)).abs() < 0.3).all()
