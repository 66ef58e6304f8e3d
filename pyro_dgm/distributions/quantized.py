# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Real numbers rounded down to levels: the likelihood of a model whose latent variable is the image before rounding."""

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


class Quantized(dist.TorchDistribution):
    r"""The point mass at the integers :math:`x = \min(\max(\lfloor v \rfloor, 0), L - 1)`.

    Args:
        v: Real numbers in units of levels, shape ``(*batch, *event)``.
        levels: Number L of levels.
        event_dim: Number of dimensions of an event.

    Raises:
        ValueError: With validation on, if v is not a number, which has no level.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, v: Tensor, levels: int, event_dim: int, *, validate_args: bool | None = None) -> None:
        batch = v.dim() - event_dim
        self.v, self.levels = v, levels
        super().__init__(v.shape[:batch], v.shape[batch:], validate_args=validate_args)
        if self._validate_args and not v.is_meta and bool(v.isnan().any()):
            raise ValueError(
                f"Quantized got v of shape {tuple(v.shape)} with NaN in it, which is no level: what it was computed "
                f"from, noise or parameters, was not finite."
            )

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), self.event_dim)

    @property
    def mean(self) -> Tensor:
        """The levels as floating point numbers."""
        return self.v.detach().floor().clamp(0, self.levels - 1)

    @property
    def variance(self) -> Tensor:
        """Zeros."""
        return torch.zeros_like(self.v)

    def sample(self, sample_shape: Any = ()) -> Tensor:  # noqa: ANN401 -- torch.Size or anything like it
        """Give the levels as int64, shape ``(*sample_shape, *batch, *event)``."""
        return self.mean.long().expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Score integers: 0 where all elements are v's levels, minus infinity elsewhere; shape ``(*batch)``."""
        if self._validate_args:
            self._validate_sample(value)
        same = (self.mean == value).flatten(-self.event_dim).all(-1)
        return torch.where(same, 0.0, -torch.inf).to(self.v.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Quantized":  # noqa: ANN401 -- torch's signature
        """Return the same distribution with a larger ``batch_shape``, without copying v."""
        new = self._get_checked_instance(Quantized, _instance)
        shape = torch.Size(batch_shape)
        new.v, new.levels = self.v.expand(shape + self.event_shape), self.levels
        super(Quantized, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
