# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Any flow of the family with random parameters, far from where it starts, and its Jacobian by autograd."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from tests.cases import TRANSFORMS, TRANSFORMS_WITHOUT_CONTEXT
from tests.transforms.toys import normal

CONTEXT = 3


def class_of(name):
    return name.split(" (")[0]


LEARNED = [(name, False) for name in TRANSFORMS]
AMORTISED = [(name, True) for name in TRANSFORMS if class_of(name) not in TRANSFORMS_WITHOUT_CONTEXT]
every_flow = pytest.mark.parametrize(
    "case", LEARNED + AMORTISED, ids=lambda case: f"{case[0]}{', amortised' if case[1] else ''}"
)
every_learned_flow = pytest.mark.parametrize("case", LEARNED, ids=lambda case: case[0])
every_amortised_flow = pytest.mark.parametrize("case", AMORTISED, ids=lambda case: case[0])


@torch.no_grad()
def randomise(flow, scale=1.0):
    """Draw all parameters anew, N(0, scale^2); weights of a network so that every layer keeps that size."""
    for module in flow.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fan_in = parameter.shape[1] if isinstance(module, nn.Linear) and name == "weight" else 1
            parameter.copy_(scale * torch.randn(parameter.shape, dtype=parameter.dtype) / fan_in**0.5)
    return flow


class Flow(NamedTuple):
    """A flow, its context if it takes one, and the transform that it is then."""

    flow: nn.Module
    context: torch.Tensor | None
    transform: object

    def forward(self, x):
        return self.transform.forward_and_logdet(x)

    def inverse(self, y):
        return self.transform.inverse_and_logdet(y)

    def over(self, base):
        return torch.distributions.TransformedDistribution(base, [self.transform])


def conditioned(flow, context):
    return Flow(flow, context, flow if context is None else flow.condition(context))


def build(case, dim=4):
    name, amortised = case
    return TRANSFORMS[name](dim, **({"context_dim": CONTEXT} if amortised else {}))


def random_flow(case, batch=(), dim=4, dtype=torch.float64, device="cpu", scale=1.0):
    """In evaluation mode, with random parameters; amortised, with a context for each of the batch."""
    flow = randomise(build(case, dim), scale).to(device, dtype).eval()
    return conditioned(flow, torch.randn(*batch, CONTEXT).to(device, dtype) if case[1] else None)


def noise(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(*shape).to(device, dtype)


def standard(dim, like):
    return normal(dim, dtype=like.dtype, device=like.device)


def jacobian(function, x):
    """One matrix for each row, provided that rows do not depend on one another."""
    x = x.detach().requires_grad_()
    y = function(x)
    rows = [torch.autograd.grad(part.sum(), x, retain_graph=True)[0] for part in y.unbind(-1)]
    return torch.stack(rows, -2)
