# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The gamma factor of a mean-field posterior, for precisions and rates."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dgm.infer.conjugate_factor import ContinuousFactor, Gradient, Node, irregular, misfit


class GammaFactor(ContinuousFactor):
    """Independent gammas, T(s) = (log s, s): the gradient is (a - 1) / s - b.

    Args:
        concentration: Shapes a at the start, of the site's shape.
        rate: Rates b at the start.
        event_dim: How many dimensions of the site's shape are the event.
    """

    concentration: Tensor
    rate: Tensor

    def __init__(self, concentration: Tensor, rate: Tensor, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.register_buffer("concentration", concentration.clone())
        self.register_buffer("rate", rate.expand_as(concentration).clone())

    def distribution(self) -> Any:
        """Give q(s)."""
        return dist.Gamma(self.concentration, self.rate).to_event(self.event_dim)

    def nodes(self) -> list[Node]:
        """Give E(1 - t) and E(1 + t), which have the mean E, and for the right t the mean of the log."""
        mean = self.concentration / self.rate
        gap = self._gap()  # 1 - t^2 = e^gap
        high = 1 + (-torch.expm1(gap)).sqrt()
        low = gap.clamp_min(self._floor()).exp() / high
        return [(mean * low, 0.5), (mean * high, 0.5)]

    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum; see the base."""
        mean = self.concentration / self.rate
        left, right = mean / 2, mean * 2
        low, high = gradient(left), gradient(right)
        slope = (low - high) / (1 / left - 1 / right)
        offset = low - slope / left
        point = mean * (1 + 0.4 * irregular(mean))
        found = misfit(gradient(point), slope / point + offset, slope / point, offset)
        self.concentration.copy_(slope + 1)
        self.rate.copy_(-offset)
        return found

    def proper(self) -> bool:
        """Tell whether the parameters are those of a distribution, whose nodes are numbers."""
        positive = super().proper() and all(bool((buffer > 0).all()) for buffer in self.buffers())
        return positive and bool((self._gap() > self._floor()).all())

    def _gap(self) -> Tensor:
        """Twice E log s - log E s."""
        return 2 * (self.concentration.digamma() - self.concentration.log())

    def _floor(self) -> float:
        return 0.9 * math.log(torch.finfo(self.rate.dtype).tiny)

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return dist.Gamma(self.concentration, self.rate).entropy().sum()
