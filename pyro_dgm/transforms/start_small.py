# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Let a network's output depend little on its input before training."""

import torch
from torch import nn


def last_layer(net: nn.Module) -> nn.Linear | nn.Conv2d | None:
    """Find the linear layer or convolution that was put last into a network; None if it has none."""
    kinds = (nn.Linear, nn.Conv2d)
    return next((module for module in reversed(list(net.modules())) if isinstance(module, kinds)), None)


def last_linear(net: nn.Module) -> nn.Linear | None:
    """Find the linear layer that was put last into a network; None if it has none."""
    return next((module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear)), None)


@torch.no_grad()
def start_small(net: nn.Module, scale: float = 0.01) -> None:
    """Shrink the weights of a network's last linear layer, if it has one, and leave its bias.

    Triangular matrices with entries of order 1 are far from invertible in 64 dimensions, so their parameters have to
    start alike for all contexts. Zero would leave the layers in front without gradients in the first step.

    Args:
        net: A network, changed in place.
        scale: Factor on the weights.
    """
    if (linear := last_linear(net)) is not None:
        linear.weight.mul_(scale)
