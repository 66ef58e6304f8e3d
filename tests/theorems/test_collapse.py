# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Posterior collapse, the lecture's toy example: what decides is whether the decoder can do without z."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.infer import ELBO, kl_terms, log_weights
from tests.oracles import not_above, within


class LinearVAE(nn.Module):
    """z ~ N(0, I), x | z ~ N(W z + b, diag(s^2)), q(z | x) = N(V x + c, diag(t^2)): all covariances are diagonal."""

    def __init__(self, dim=2, latent=1):
        super().__init__()
        zeros = {"dtype": torch.float64}
        self.decoder = nn.Parameter(0.3 * torch.randn(dim, latent, **zeros))
        self.encoder = nn.Parameter(0.3 * torch.randn(latent, dim, **zeros))
        self.log_noise = nn.Parameter(torch.zeros(dim, **zeros))
        self.log_scale = nn.Parameter(torch.zeros(latent, **zeros))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(self.log_scale), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.decoder.mT, self.log_noise.exp()).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.encoder.mT, self.log_scale.exp()).to_event(1))

    def ignore_z(self, variances):
        """Give the decoder the marginal variances of the data, and q the prior."""
        with torch.no_grad():
            for parameter in (self.decoder, self.encoder, self.log_scale):
                parameter.zero_()
            self.log_noise.copy_(0.5 * variances.log())
        return self

    def fit(self, x, steps=250):
        optimizer, bound = torch.optim.Adam(self.parameters(), lr=0.05), ELBO(analytic_kl=True)
        for _ in range(steps):
            optimizer.zero_grad()
            bound.loss_and_grads(self.model, self.guide, x)
            optimizer.step()
        return self

    def judge(self, x):
        """The ELBO of each datum and its KL."""
        with torch.no_grad():
            weights = log_weights(self.model, self.guide, x)
            bound = ELBO(analytic_kl=True).per_datum(self.model, self.guide, x)
        return bound, kl_terms(weights, analytic=True)["z"][0]


def world(correlation):
    """The distribution of the data, of variances 1 and 2."""
    covariance = math.sqrt(2) * correlation
    matrix = torch.tensor([[1.0, covariance], [covariance, 2.0]], dtype=torch.float64)
    return dist.MultivariateNormal(torch.zeros(2, dtype=torch.float64), matrix)


def test_with_a_diagonal_covariance_nothing_beats_ignoring_the_latents():
    """If the covariance of the data is diagonal, the decoder models them without z: KL = 0 attains log p(x) itself."""
    truth = world(0.0)
    x = truth.sample((4000,))
    bound, kl = LinearVAE().ignore_z(torch.tensor([1.0, 2.0])).judge(x)
    assert torch.allclose(bound, truth.log_prob(x))
    assert torch.equal(kl, torch.zeros_like(kl))
    trained, _ = LinearVAE().fit(x[:2000]).judge(x[2000:])
    assert not_above(trained, -truth.entropy())


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_with_correlations_ignoring_the_latents_costs_the_total_correlation(correlation):
    """If the covariance is not diagonal, the best model without z is short of log p(x) by the total correlation."""
    truth = world(correlation)
    x = truth.sample((4000,))
    bound, _ = LinearVAE().ignore_z(torch.tensor([1.0, 2.0])).judge(x)
    assert within(truth.log_prob(x) - bound, -0.5 * math.log(1 - correlation**2))


def test_with_correlations_the_encoder_uses_the_latents():
    """If the covariance is not diagonal, training uses z: the ELBO passes the best one without z, and KL > 0."""
    truth = world(0.9)
    x = truth.sample((2000,))
    bound, kl = LinearVAE().fit(x).judge(x)
    total_correlation = -0.5 * math.log(1 - 0.9**2)
    without = truth.entropy() + total_correlation
    assert bound.mean() > -without + 0.8 * total_correlation
    assert kl.mean() > total_correlation / 2
