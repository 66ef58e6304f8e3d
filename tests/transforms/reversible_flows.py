# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A few flows as a Compose and as a Reversible, and the gradients of a loss, which must be the same."""

from functools import partial

import torch
from torch import nn

from pyro_dgm.nn import MLP
from pyro_dgm.transforms import ActNorm, AffineCoupling, Compose, LULinear, Reversible
from tests.transforms.random_flows import randomise

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
SMALL = partial(MLP, hidden=(8,), activation=nn.Tanh)


def flows(depth=2, dim=4, **context):
    parts = [AffineCoupling(dim, net=SMALL, **context) for _ in range(depth)]
    return randomise(Compose([flow for part in parts for flow in (part, LULinear(dim), ActNorm(dim))]), 0.3).double()


def both(**options):
    """The same flows as a Compose and as a Reversible, in evaluation mode."""
    plain = flows(**options).eval()
    return plain, Reversible(plain.parts).eval()


def data(*batch, dim=4):
    return torch.randn(*batch, dim, dtype=torch.float64)


def loss(flow, y):
    x, logdet = flow.inverse_and_logdet(y)
    return (x.square().sum(-1) / 2 - logdet).sum()


def gradients(flow, value):
    return torch.autograd.grad(value, list(flow.parameters()), allow_unused=True)
