# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The VAE as a Bayesian model: the lecture's formulas on a decoder of one weight, which quadrature integrates out."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.infer import ELBO
from pyro_dgm.models import BayesianWeights
from tests.oracles import within

NOISE = 0.5


class OneWeight(nn.Module):
    """w ~ N(0, 1), z ~ N(0, 1), x ~ N(w z, 0.5^2); q(z | x) is exact for the mean of q(w), or wider."""

    def __init__(self, weights, *, widen=1.0):
        super().__init__()
        net = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(net.weight, 1.3)
        self.decoder = BayesianWeights(net, posterior=weights, start_scale=0.15)
        self.widen = widen

    def model(self, x):
        w = self.decoder.model()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(w, z), NOISE).to_event(1), obs=x)

    def guide(self, x):
        self.decoder.guide()
        w = self.decoder.loc.detach()
        variance = NOISE**2 / (w.square() + NOISE**2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * w * variance / NOISE**2, self.widen * variance.sqrt()).to_event(1))

    def bounds(self, x):
        return torch.stack([-ELBO(20).loss(self.model, self.guide, x) for _ in range(40)])


def data():
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, 20, 1, generator=generator, dtype=torch.float64)
    return 1.3 * draw[0] + NOISE * draw[1]


def log_joint(w, x):
    """Log p(X | w) + log p(w), z integrated out, for each w."""
    likelihood = dist.Normal(0.0, (w.square() + NOISE**2).sqrt().unsqueeze(-1)).log_prob(x.squeeze(-1)).sum(-1)
    return likelihood + dist.Normal(0.0, 1.0).log_prob(w)


def log_evidence(x):
    w = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    return log_joint(w, x).logsumexp(0) + math.log(16 / 4000)


@pytest.mark.parametrize("widen", [1.0, 1.5])
def test_the_posterior_of_the_weights_is_bounded_by_the_elbo_and_the_prior(widen):
    """Log p(theta | X) >= L(q, theta) + log p(theta) - log p(X), with equality where q(z) is the posterior (E-step)."""
    torch.manual_seed(0)
    x, pair = data(), OneWeight("map", widen=widen)
    theta = pair.decoder.loc.detach()
    log_posterior = (log_joint(theta, x) - log_evidence(x)).squeeze()
    found = pair.bounds(x) - log_evidence(x)  # L(q, theta) + log p(theta) - log p(X)
    gap = len(x) * (0.5 * (widen**2 - 1) - math.log(widen))  # KL of a normal to one of the same mean
    assert within(found, log_posterior - gap)
    if widen == 1:
        assert torch.allclose(found, log_posterior.expand_as(found))


def test_the_m_step_with_a_prior_is_the_maximum_a_posteriori():
    """theta* = argmax of L(q, theta) + log p(theta): with q the posterior, its gradient is that of log p(theta | X)."""
    x, pair = data(), OneWeight("map")
    torch.manual_seed(0)
    slopes = []
    for _ in range(40):
        pair.zero_grad()
        ELBO(50).loss_and_grads(pair.model, pair.guide, x)
        slopes.append(-pair.decoder.loc.grad.clone())
    theta = pair.decoder.loc.detach().clone().requires_grad_()
    (exact,) = torch.autograd.grad(log_joint(theta, x).sum(), theta)
    assert within(torch.stack(slopes), exact)


def test_with_a_distribution_over_the_weights_the_bound_is_on_the_evidence():
    """Log p(X) = L(q) + KL(q(w, z) || p(w, z | X)) >= L(q), for a q that is independent between w and z."""
    torch.manual_seed(0)
    x, pair = data(), OneWeight("normal")
    found = pair.bounds(x)
    assert found.mean() + 5 * found.std() / math.sqrt(40) < log_evidence(x)
    q = dist.Normal(1.3, 0.15)
    w = torch.linspace(0.3, 2.3, 2001, dtype=torch.float64)
    over_w = (q.log_prob(w).exp() * (q.log_prob(w) - log_joint(w, x))).sum() * 1e-3 + log_evidence(x)
    slope = 1.3 / (1.3**2 + NOISE**2)
    means, variance = w.unsqueeze(-1) / (w.square() + NOISE**2).unsqueeze(-1) * x.squeeze(-1), NOISE**2
    of_q, of_p = variance / (1.3**2 + variance), variance / (w.square() + variance)
    divergence = 0.5 * (of_q / of_p - 1 - (of_q / of_p).log()).unsqueeze(-1)
    divergence = (divergence + 0.5 * (slope * x.squeeze(-1) - means).square() / of_p.unsqueeze(-1)).sum(-1)
    over_z = (q.log_prob(w).exp() * divergence).sum() * 1e-3
    assert within(found, log_evidence(x) - over_w - over_z)
