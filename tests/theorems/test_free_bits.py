# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Free bits and the annealing of the KL, as the lecture states them, on a model whose optimum is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.infer import ELBO, FreeBits

NOISE = 3.0  # so large that the true posterior has 0.05 nats of KL only: less than free bits grant


class Faint(nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, 9) and q(z | x) = N(a x, s^2): exact at a = 0.1, s^2 = 0.9."""

    def __init__(self, slope=0.05, variance=0.95):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(0.5 * math.log(variance), dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, NOISE), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, self.log_scale.exp()))

    def kl(self, x):
        """The mean KL over the data, exactly."""
        variance = (2 * self.log_scale).exp()
        return (0.5 * (variance + (self.slope * x).square() - 1) - self.log_scale).mean().detach()

    def fit(self, bound, x, steps=120):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
        for _ in range(steps):
            optimizer.zero_grad()
            bound.loss_and_grads(self.model, self.guide, x)
            optimizer.step()
            slower.step()
        return self


def data(size):
    return math.sqrt(1 + NOISE**2) * torch.randn(size, dtype=torch.float64)


@pytest.mark.parametrize("nats", [0.2, 0.5])
def test_free_bits_result_in_a_kl_of_at_least_lambda(nats):
    """Maximising E_q log p(x | z) - max(lambda, KL) results in KL(q || p) >= lambda, where the ELBO has less."""
    x = data(500)
    plain = Faint().fit(ELBO(analytic_kl=True), x).kl(x)
    free = Faint().fit(ELBO(kl=FreeBits(nats)), x).kl(x)
    assert plain == pytest.approx(-0.5 * math.log(0.9), abs=0.02), "that of the exact posterior"
    assert free >= nats - 0.01
    assert free <= nats + 0.1, "and no more than is free, as more costs what it costs in the ELBO"


def test_the_objective_with_free_bits_never_exceeds_the_elbo():
    """E_q log p(x | z) - max(lambda, KL) is at most the ELBO, so below log p(x), and equal to it where KL >= lambda."""
    x = data(500)
    for slope, equal in ((0.05, False), (0.4, True)):
        pair, values = Faint(slope), []
        for kl in (None, FreeBits(0.3)):
            torch.manual_seed(0)
            values.append(ELBO(kl=kl, analytic_kl=True).per_datum(pair.model, pair.guide, x).mean())
        plain, free = values
        assert (pair.kl(x) >= 0.3) == equal
        assert torch.allclose(plain, free) if equal else free < plain


def test_annealing_starts_from_an_autoencoder_and_ends_with_the_elbo():
    """E_q log p(x | z) - beta KL falls linearly in beta: by nothing at 0, and by the KL, to the ELBO, at 1."""
    x, pair, values = data(500), Faint(0.3), {}
    for beta in (0.0, 0.25, 1.0):
        torch.manual_seed(0)
        values[beta] = ELBO(beta=beta, analytic_kl=True).per_datum(pair.model, pair.guide, x).mean()
    assert torch.allclose(values[0.0] - values[1.0], pair.kl(x))
    assert torch.allclose(values[0.0] - values[0.25], 0.25 * pair.kl(x))
