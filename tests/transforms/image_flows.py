# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Images for flows of images, flows that have met them, and the distributions that flows make of noise."""

import pyro.distributions as dist
import torch
from sklearn.datasets import load_digits

DIGITS = torch.logit(0.05 + 0.9 * (torch.from_numpy(load_digits().images).float().unsqueeze(1) + 0.5) / 17)


def data(*batch):
    """Images whose channels differ in mean and scale."""
    scales = torch.tensor([2.0, 0.1, 30.0], dtype=torch.float64).reshape(3, 1, 1)
    return 5 * scales + scales * torch.randn(*batch, 3, 8, 8, dtype=torch.float64)


def digits(rows):
    """Real digits on the logit scale, with a little noise."""
    return DIGITS[torch.randint(len(DIGITS), (rows,))] + 0.05 * torch.randn(rows, 1, 8, 8)


def stirred(flow, draw=data):
    """The flow after it has met data, with parameters moved away from the start, in double precision."""
    flow = flow.double()
    with torch.no_grad():
        flow.inverse_and_logdet(draw(50).double())
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return flow


def images(flow, temperature=1.0):
    """The distribution of images that a flow makes of flat noise."""
    (parameter, *_) = flow.parameters()
    base = dist.Normal(torch.zeros(flow.dim).to(parameter), temperature).to_event(1)
    return dist.TransformedDistribution(base, [flow])
