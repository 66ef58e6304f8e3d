# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A map of the real line onto one cell of length 1 for each pixel, under which a standard normal becomes uniform."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_dgm.transforms.one_pass import OnePass


class IntoCells(OnePass):
    r"""Map real y to v in the cell [x, x + 1) of integers x, by the cumulative distribution function of N(0, 1).

    .. math:: v = x + \Phi(y), \qquad \log|\det J| = \sum_i \log \mathcal{N}(y_i; 0, 1)

    If y is N(0, I), v is uniform. It never rounds up to x + 1: it is the number below, at most. A given v stands for
    all that rounds to it, so where v - x is less than half the spacing of numbers above x, or x + 1 - v less than half
    of that below x + 1, that half is taken instead, and y is finite. (Above x = 0, numbers are dense: there v is exact
    down to the smallest normal one.) A v of another cell has log|det J| of plus infinity, that is, density 0.

    Args:
        low: The integers x as floating point numbers, shape ``(*batch, *event)``.
        event_dim: Number of dimensions of an event.
    """

    def __init__(self, low: Tensor, event_dim: int) -> None:
        super().__init__(cache_size=1)
        self.low, self.dims = low, event_dim
        self.top = below(low + 1)
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraints.independent(constraints.half_open_interval(low, low + 1), event_dim)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map y to v, with log|det dv/dy|, shape ``(*batch)``."""
        return (self.low + torch.special.ndtr(x)).clamp_max(self.top), self._logdet(x)

    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map v back to y, with log|det dy/dv|, minus infinity outside the cell."""
        low_half = ((above(self.low) - self.low) / 2).clamp_min(torch.finfo(y.dtype).tiny)
        high_half = (self.low + 1 - self.top) / 2
        below_v, above_v = y - self.low, self.low + 1 - y
        inside = (below_v >= 0) & (above_v > 0)
        left = below_v <= above_v
        tail = torch.where(left, torch.maximum(below_v, low_half), torch.maximum(above_v, high_half))  # exact, both
        noise = torch.special.ndtri(tail)
        noise = torch.where(left, noise, -noise)
        logdet = -self._logdet(noise)
        return noise, torch.where(inside.flatten(-self.dims).all(-1), logdet, -torch.inf)

    def forward_shape(self, shape: torch.Size | tuple[int, ...]) -> torch.Size:
        """Broadcast the shape of y with that of the cells."""
        return torch.broadcast_shapes(shape, self.low.shape)

    def inverse_shape(self, shape: torch.Size | tuple[int, ...]) -> torch.Size:
        """Broadcast the shape of v with that of the cells."""
        return torch.broadcast_shapes(shape, self.low.shape)

    def tensors(self) -> Iterable[Tensor]:
        """Give the cells."""
        return (self.low,)

    def modes(self) -> Iterable[bool]:
        """Give nothing: no module takes part."""
        return ()

    def _logdet(self, noise: Tensor) -> Tensor:
        event = list(range(-self.dims, 0))
        count = math.prod(noise.shape[-self.dims :])
        return -0.5 * noise.square().sum(event) - 0.5 * count * math.log(2 * math.pi)


def below(numbers: Tensor) -> Tensor:
    """Give for each floating point number the one next to it towards zero."""
    return torch.nextafter(numbers, torch.zeros_like(numbers))


def above(numbers: Tensor) -> Tensor:
    """Give for each floating point number the one next to it towards infinity."""
    return torch.nextafter(numbers, torch.full_like(numbers, torch.inf))
