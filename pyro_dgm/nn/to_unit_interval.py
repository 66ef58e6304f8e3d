# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Integer levels as numbers between 0 and 1, which networks take."""

import torch
from torch import Tensor, nn


class ToUnitInterval(nn.Module):
    """Scale integers 0 ... levels - 1 to [0, 1], in the dtype and on the device of the networks behind it.

    Args:
        levels: Number of levels.
    """

    like: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map integers of any shape to floating point numbers."""
        x = x.to(self.like.dtype)
        return x if self.levels == 2 else x / (self.levels - 1)
