# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Activations for planar flows, those of the package and others, and flows with given parameters."""

import torch
from torch import nn

from pyro_dgm.transforms.activation import ACTIVATIONS, Activation


def falling_slope(z):
    return -z.sigmoid()


def falling(z):
    return nn.functional.logsigmoid(-z)


def ramp(z):
    return 3 * z + z.sin()


def ramp_slope(z):
    return 3 + z.cos()


OWN = {  # a slope that is nowhere positive, and one that is nowhere near zero
    "falling": Activation(falling, falling_slope, least=-1.0, steepest=0.0),
    "ramp": Activation(ramp, ramp_slope, least=2.0, steepest=4.0),
}
EVERY = {**ACTIVATIONS, **OWN}


def set_to(flow, **values):
    """Give a learned flow these parameters."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = getattr(flow.values, name)
            parameter.copy_(torch.as_tensor(value, dtype=parameter.dtype))
    return flow
