# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A coin flip, for pixels that are 0 or 1, whose values are integers."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dgm.distributions.summed_bernoulli import log_prob, summed_log_prob


class Bernoulli(dist.Bernoulli):
    """Pyro's Bernoulli over integers instead of floats.

    :meth:`log_prob` takes 0 and 1 in any integer, boolean or floating dtype (Pyro's needs the dtype of its
    parameters); samples and :meth:`enumerate_support` are int64. Prefer ``logits`` to ``probs``: the log-probability
    of logits is exact however large they are.

    Args:
        probs: Probability of 1, shape ``(*batch)``.
        logits: Log-odds of 1, shape ``(*batch)``. Give one of the two.

    Raises:
        ValueError: If both or neither are given, or (with validation on) a value is not 0 or 1.

    Example:
        >>> x = torch.tensor([0, 1], dtype=torch.uint8)
        >>> Bernoulli(logits=torch.tensor([0.0, 1.0])).log_prob(x)
        tensor([-0.6931, -0.3133])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, of the broadcast shape of value and ``batch_shape``."""
        if self._validate_args:
            self._validate_sample(value)
        return log_prob(self.logits, value)

    def summed_log_prob(self, value: Tensor, dims: int) -> Tensor:
        """Return log p(value) in nats, summed over the last ``dims`` dimensions: much faster than one by one."""
        if self._validate_args:
            self._validate_sample(value)
        return summed_log_prob(self.logits, value, dims)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw int64 zeros and ones of shape ``(*sample_shape, *batch)``."""
        return super().sample(torch.Size(sample_shape)).long()

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 (torch's signature)
        """Return 0 and 1 along a new first dimension."""
        return super().enumerate_support(expand).long()
