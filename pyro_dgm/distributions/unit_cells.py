# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The uniform distribution over one cell of length 1 for each element: what uniform dequantisation draws from."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_dgm.transforms.into_cells import below


class UnitCells(dist.TorchDistribution):
    """Uniform in [x, x + 1) for integers x. What is drawn never rounds up to x + 1: it is the number below, at most.

    Args:
        low: The integers x as floating point numbers, shape ``(*batch, *event)``.
        event_dim: Number of dimensions of an event.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, low: Tensor, event_dim: int, *, validate_args: bool | None = None) -> None:
        batch = low.dim() - event_dim
        self.low, self.top = low, below(low + 1)
        super().__init__(low.shape[:batch], low.shape[batch:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """The cells."""
        return constraints.independent(constraints.half_open_interval(self.low, self.low + 1), self.event_dim)

    @property
    def mean(self) -> Tensor:
        """The middle of the cells."""
        return self.low + 0.5

    @property
    def variance(self) -> Tensor:
        """1/12 in every element."""
        return torch.full_like(self.low, 1 / 12)

    def rsample(self, sample_shape: Any = ()) -> Tensor:  # noqa: ANN401 -- torch.Size or anything like it
        """Draw from the cells, shape ``(*sample_shape, *batch, *event)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.rand(shape, dtype=self.low.dtype, device=self.low.device)
        return torch.minimum(noise.add_(self.low), self.top)

    def log_prob(self, value: Tensor) -> Tensor:
        """Score ``value``, shape ``(*batch, *event)``: 0 in the cells, minus infinity elsewhere."""
        if self._validate_args:
            self._validate_sample(value)
        inside = ((value >= self.low) & (value <= self.top)).flatten(-self.event_dim).all(-1)
        return torch.where(inside, 0.0, -torch.inf).to(self.low.dtype)

    def entropy(self) -> Tensor:
        """Return 0, in nats, shape ``(*batch)``."""
        return self.low.new_zeros(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "UnitCells":  # noqa: ANN401 -- torch's signature
        """Return the same distribution with a larger ``batch_shape``, without copying the cells."""
        new = self._get_checked_instance(UnitCells, _instance)
        shape = torch.Size(batch_shape)
        new.low, new.top = self.low.expand(shape + self.event_shape), self.top.expand(shape + self.event_shape)
        super(UnitCells, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
