# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of distributions over the integer levels 0..L-1 that are given by a formula instead of a table."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

#: Elements of one temporary in a sum over levels: 16 MiB in float32, small beside a network's activations.
CHUNK = 2**22


class LevelDistribution(dist.TorchDistribution):
    """A distribution over the integers 0..levels-1, one for every element of ``batch_shape``.

    To write one: name the parameters, ``loc`` among them, in ``arg_constraints``, set them, call
    ``super().__init__(levels, batch_shape, validate_args=...)``, and implement :meth:`log_prob_of`, :meth:`at_least`
    and ``sample``. The moments and the entropy are exact sums over all levels: ``levels`` evaluations per element, in
    chunks, so that the memory is bounded (unless gradients are recorded, which keeps every chunk).

    Args:
        levels: Number L of levels, at least 2.
        batch_shape: Shape of the parameters.
        validate_args: Whether to check parameters and values; Pyro's global setting if None.

    Raises:
        ValueError: If ``levels`` is not an integer of at least 2, or (with validation on) a parameter is NaN.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]]
    has_enumerate_support = True
    loc: Tensor

    def __init__(self, levels: int, batch_shape: torch.Size, *, validate_args: bool | None = None) -> None:
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(f"{type(self).__name__} got levels={levels}: it must be an integer of at least 2.")
        self.levels = levels
        # Torch cannot validate vectors of an empty batch, and there is nothing to validate.
        super().__init__(batch_shape, validate_args=validate_args if self.loc.numel() else False)

    @abstractmethod
    def log_prob_of(self, level: Tensor) -> Tensor:
        """Return log p(level) in nats for levels of the dtype of ``loc``, of any shape that broadcasts with batch."""

    @abstractmethod
    def at_least(self, level: Tensor) -> Tensor:
        """Return P(X >= level) for levels 1..L-1 of the dtype of ``loc``, of any shape that broadcasts with batch."""

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The integers 0..levels-1."""
        return constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Score levels.

        Args:
            value: Levels 0..L-1 of any integer dtype, or floats that hold integers; it broadcasts with the batch.

        Returns:
            log p(value) in nats, of the broadcast shape.

        Raises:
            ValueError: With validation on, if a value is not one of the levels.
        """
        level = value.to(self.loc.dtype)
        if self._validate_args:
            self._validate_sample(level)
        return self.log_prob_of(level)

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None) -> Any:
        """Return the same distribution with a larger ``batch_shape``, without copying its parameters."""
        new = self._get_checked_instance(type(self), _instance)
        for name, constraint in self.arg_constraints.items():
            parameter = getattr(self, name)
            event_shape = parameter.shape[parameter.dim() - constraint.event_dim :]
            setattr(new, name, parameter.expand(torch.Size(batch_shape) + event_shape))
        new.levels = self.levels
        super(LevelDistribution, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 (torch's signature)
        """Return all levels as int64 along a new first dimension: ``(L, *batch)``, or ``(L, 1, ...)`` unexpanded."""
        levels = torch.arange(self.levels, device=self.loc.device).reshape(-1, *(1,) * len(self.batch_shape))
        return levels.expand(-1, *self.batch_shape) if expand else levels

    @property
    def mean(self) -> Tensor:
        r"""Expected level, :math:`\sum_{j=1}^{L-1} P(X \ge j)`, shape ``(*batch)``."""
        return self._sum_over_levels(self.at_least, first=1)

    @property
    def variance(self) -> Tensor:
        """Variance of the level, shape ``(*batch)``."""
        mean = self.mean
        return self._sum_over_levels(lambda level: self.log_prob_of(level).exp() * (level - mean).square())

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape ``(*batch)``."""

        def surprise(level: Tensor) -> Tensor:
            log_prob = self.log_prob_of(level)
            return -log_prob.exp() * log_prob

        return self._sum_over_levels(surprise)

    def _sum_over_levels(self, term: Callable[[Tensor], Tensor], *, first: int = 0) -> Tensor:
        """Sum term(level), where level is ``(n, 1, ..., 1)`` and the term ``(n, *batch)``, over first..L-1."""
        chunk = max(1, CHUNK // max(1, self.loc.numel()))
        total = self.loc.new_zeros(self.batch_shape)
        for start in range(first, self.levels, chunk):
            stop = min(start + chunk, self.levels)
            level = torch.arange(start, stop, dtype=self.loc.dtype, device=self.loc.device)
            total = total + term(level.reshape(-1, *(1,) * len(self.batch_shape))).sum(0)
        return total
