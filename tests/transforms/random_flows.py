# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Any flow of the family with random parameters, far from where it starts, and its Jacobian by autograd."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from tests.cases import (
    IMAGE_TRANSFORMS,
    TRANSFORMS,
    TRANSFORMS_OF_MANY_MATRICES,
    TRANSFORMS_WITHOUT_CONTEXT,
)

CONTEXT = 3
IMAGE = (2, 4, 4)  # the shape that flows of images are built for


def class_of(name):
    return name.split(" (")[0]


def learned(names):
    return [(name, False) for name in names]


def amortised(names):
    return [(name, True) for name in names if class_of(name) not in TRANSFORMS_WITHOUT_CONTEXT]


def name_of(case):
    return f"{case[0]}{', amortised' if case[1] else ''}"


LEARNED, AMORTISED = learned(TRANSFORMS), amortised(TRANSFORMS)
IMAGES, AMORTISED_IMAGES = learned(IMAGE_TRANSFORMS), amortised(IMAGE_TRANSFORMS)
every_flow = pytest.mark.parametrize("case", LEARNED + AMORTISED, ids=name_of)
every_learned_flow = pytest.mark.parametrize("case", LEARNED, ids=lambda case: case[0])
every_flow_of_images = pytest.mark.parametrize("case", IMAGES + AMORTISED_IMAGES, ids=name_of)
every_flow_of_anything = pytest.mark.parametrize("case", LEARNED + AMORTISED + IMAGES + AMORTISED_IMAGES, ids=name_of)
every_amortised_flow_of_anything = pytest.mark.parametrize("case", AMORTISED + AMORTISED_IMAGES, ids=name_of)


@torch.no_grad()
def randomise(flow, scale=1.0):
    """Draw all parameters anew, N(0, scale^2); weights of a network so that every layer keeps that size."""
    for module in flow.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_weight = isinstance(module, nn.Linear | nn.Conv2d) and name == "weight"
            fan_in = parameter[0].numel() if is_weight else 1
            parameter.copy_(scale * torch.randn(parameter.shape, dtype=parameter.dtype) / fan_in**0.5)
    return flow


class Flow(NamedTuple):
    """A flow, its context if it takes one, and the transform that it is then."""

    flow: nn.Module
    context: torch.Tensor | None
    transform: object

    @property
    def shape(self):
        return self.flow.shape

    @property
    def out_shape(self):
        return self.flow.out_shape

    @property
    def directions(self):
        """Both functions, each with the shape of an event that it takes and of one that it gives."""
        return (self.forward, self.shape, self.out_shape), (self.inverse, self.out_shape, self.shape)

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
    make, shape = (TRANSFORMS[name], dim) if name in TRANSFORMS else (IMAGE_TRANSFORMS[name], IMAGE)
    return make(shape, **({"context_dim": CONTEXT} if amortised else {}))


def random_flow(case, batch=(), dim=4, dtype=torch.float64, device="cpu", scale=1.0):
    """In evaluation mode, with random parameters; amortised, with a context for each of the batch."""
    scale = 0.3 * scale if class_of(case[0]) in TRANSFORMS_OF_MANY_MATRICES else scale
    flow = randomise(build(case, dim), scale).to(device, dtype).eval()
    return conditioned(flow, torch.randn(*batch, *flow.context_shape).to(device, dtype) if case[1] else None)


def noise(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(*shape).to(device, dtype)


def standard(shape, like):
    """The standard normal of vectors of a dimension, or of events of a shape."""
    shape = (shape,) if isinstance(shape, int) else shape
    zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
    return torch.distributions.Independent(torch.distributions.Normal(zeros, torch.ones_like(zeros)), len(shape))


def jacobian(function, x, batch=None):
    """One matrix for each row, provided that rows do not depend on one another; events are flattened.

    All dimensions but the last count rows, unless it is said how many do.
    """
    batch = x.dim() - 1 if batch is None else batch
    x = x.detach().requires_grad_()
    y = function(x).flatten(batch)
    rows = [torch.autograd.grad(part.sum(), x, retain_graph=True)[0].flatten(batch) for part in y.unbind(-1)]
    return torch.stack(rows, -2)
