# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One free probability for every level of a pixel, with a mean."""

import pyro.distributions as dist
import torch
from torch import Tensor


class CategoricalLevels(dist.Categorical):
    """Pyro's Categorical, its categories being the ordered levels 0..L-1 of a pixel or an audio sample.

    :meth:`log_prob` takes any integer dtype (and floats that hold integers); samples are int64; :attr:`mean` and
    :attr:`variance` are those of the level, where Pyro's Categorical gives NaN.

    Args:
        probs: Probabilities of the levels, shape ``(*batch, L)``; they are normalised.
        logits: Their logarithms up to a constant, shape ``(*batch, L)``. Give one of the two.

    Raises:
        ValueError: If both or neither are given, or (with validation on) a value is not a level.

    Example:
        >>> CategoricalLevels(logits=torch.zeros(256)).mean
        tensor(127.5000)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, of the broadcast shape of value and ``batch_shape``."""
        # int64 and floats pass as they are: the first carry Pyro's mark of enumeration, the second must be validated.
        if value.dtype != torch.int64 and not value.is_floating_point():
            value = value.long()
        return super().log_prob(value)

    @property
    def mean(self) -> Tensor:
        """Expected level, shape ``(*batch)``."""
        return (self.probs * self._levels()).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the level, shape ``(*batch)``."""
        return (self.probs * (self._levels() - self.mean.unsqueeze(-1)).square()).sum(-1)

    def _levels(self) -> Tensor:
        return torch.arange(self._num_events, dtype=self.probs.dtype, device=self.probs.device)
