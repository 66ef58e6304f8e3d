# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the kernel that moves all weights at once, where an optimiser has one and nobody chose another."""

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

DEVICES = ("cpu", "cuda")


def fuse(optimizer: Optimizer) -> None:
    """Have torch's Adam or AdamW move all weights in one kernel; numbers differ by rounding.

    By itself torch moves one tensor after the other on a CPU, about ten operations each. Whatever else is given stays
    as it is: an optimiser of another class (SGD takes sparse gradients, its fused kernel does not), a subclass, whose
    step is its own, and a group of parameters for which ``fused`` or ``foreach`` was chosen. A state that was saved
    says itself which kernel made it, and goes on with that, to the bit.

    Args:
        optimizer: Before its first step, over parameters that are on their device.

    >>> adam = Adam([torch.zeros(3, requires_grad=True)])
    >>> fuse(adam)
    >>> adam.param_groups[0]["fused"]
    True
    """
    if type(optimizer) not in (Adam, AdamW):
        return
    for group in optimizer.param_groups:
        chosen = group["fused"] is not None or group["foreach"] is not None or group["differentiable"]
        if not chosen and all(_suits(parameter) for parameter in group["params"]):
            group["fused"] = True


def _suits(parameter: Tensor) -> bool:
    """Whether the kernel may run through a parameter's memory; torch does not check this on a CPU.

    It takes the gradient and the moments to lie in memory as the parameter does. They do where it has no gaps.
    """
    return (
        parameter.is_floating_point()
        and parameter.device.type in DEVICES
        and torch.empty_like(parameter).stride() == parameter.stride()
    )
