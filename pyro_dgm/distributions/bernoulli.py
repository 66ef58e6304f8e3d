# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A coin flip, for pixels that are 0 or 1, whose values are integers."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_dgm.nn.apply_function import apply_function

THRESHOLD = 40  # softplus is the identity above, to the last bit of float64

LARGE = 2**18  # numbers from which memory limits speed: below, a gradient in one pass saves less than calling it costs


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
        if self.logits.numel() < LARGE:
            return _log_prob(self.logits, value)
        return apply_function(_LogProb, self.logits, value)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw int64 zeros and ones of shape ``(*sample_shape, *batch)``."""
        return super().sample(torch.Size(sample_shape)).long()

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 (torch's signature)
        """Return 0 and 1 along a new first dimension."""
        return super().enumerate_support(expand).long()


def _log_prob(logits: Tensor, value: Tensor) -> Tensor:
    """Compute log p; torch's logsigmoid takes three times as long on a CPU as softplus."""
    sign = value.to(torch.int8).mul(-2).add(1).to(logits.dtype)  # bytes first: a quarter of the memory traffic
    return softplus(sign * logits, threshold=THRESHOLD).neg_()


class _LogProb(torch.autograd.Function):
    """log sigmoid(logits) of 1 and log sigmoid(-logits) of 0, with its gradient, value - sigmoid(logits), in one pass.

    On large pictures and many particles it is the memory that limits speed: operations one by one take three passes.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, value: Tensor) -> Tensor:
        """Compute log p."""
        return _log_prob(logits, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep what the gradient needs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Give the gradient of the logits; that of a coin's side is none."""
        logits, value = ctx.saved_tensors
        found = grad * (value.to(logits.dtype) - logits.sigmoid())
        return found.sum_to_size(logits.shape), None
