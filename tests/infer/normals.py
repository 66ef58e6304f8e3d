# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A pair of normals with three latent dimensions, of which the KL terms are known, and how its losses compare."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Normals(nn.Module):
    """z of three dimensions with a learned prior and posterior, and x that shows it through noise."""

    def __init__(self, *, prior=None, dtype=torch.float64, device="cpu"):
        super().__init__()
        to = {"dtype": dtype, "device": device}
        self.prior = nn.Parameter(torch.tensor([0.1, -0.2, 0.4], **to))
        self.posterior = nn.Parameter(torch.tensor([0.5, 1.5, 0.05], **to))
        self.flow = prior
        self.like = torch.zeros(3, **to)

    def model(self, x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(self.prior, 1.0).to_event(1) if self.flow is None else self.flow()
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 0.9).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.posterior * x, 0.9).to_event(1))

    def data(self, size):
        return torch.randn(size, 3, generator=torch.Generator().manual_seed(3)).to(self.like)


def run(bound, pair, x, *, seed=0):
    """The loss and the gradients of all parameters, from a given seed."""
    torch.manual_seed(seed)
    loss = bound.differentiable_loss(pair.model, pair.guide, x)
    return [loss.detach(), *torch.autograd.grad(loss, list(pair.parameters()))]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def close(ours, theirs):
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(ours, theirs, strict=True))
