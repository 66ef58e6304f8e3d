# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Let a network's output depend little on its input before training."""

from typing import TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def last_layer(net: nn.Module, *kinds: type[Layer]) -> Layer | None:
    """Find the layer of one of some kinds, e.g. `nn.Linear`, that was put last into a network; None if it has none."""
    return next((module for module in reversed(list(net.modules())) if isinstance(module, kinds)), None)


@torch.no_grad()
def start_small(net: nn.Module, scale: float = 0.01) -> None:
    """Shrink the weights of a network's last linear layer, if it has one, and leave its bias.

    Triangular matrices with entries of order 1 are far from invertible in 64 dimensions, so their parameters have to
    start alike for all contexts. Zero would leave the layers in front without gradients in the first step.

    Args:
        net: A network, changed in place.
        scale: Factor on the weights.
    """
    if (linear := last_layer(net, nn.Linear)) is not None:
        linear.weight.mul_(scale)
