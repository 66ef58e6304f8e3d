# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of models that are a flow: noise of a simple distribution, mapped to data of any shape."""

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import Distribution
from torch.distributions.transforms import ReshapeTransform

from pyro_dgm.transforms.base import FlowTransform


class PushForward(PyroModule):
    """Keep a flow and the distribution of its noise.

    Args:
        base: Call it for the distribution of the noise, of ``event_shape`` ``(D,)``.
        flow: Maps noise to the D elements of a datum.
        shape: Shape of one datum.
    """

    def __init__(self, base: nn.Module, flow: FlowTransform, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.base, self.flow, self.shape = base, flow, shape

    def distribution(self) -> Distribution:
        """Give the distribution of data, of ``event_shape`` equal to ``shape``: sampling and scoring are one pass."""
        whole = [] if len(self.shape) == 1 else [ReshapeTransform(torch.Size(self.flow.shape), torch.Size(self.shape))]
        return dist.TransformedDistribution(self.base(), [self.flow, *whole])
