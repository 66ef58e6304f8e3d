# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Importance weights are summed on the way, so that any number of particles needs the memory of one chunk."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dgm.evaluate.pareto import tail_length


class WeightSums:
    r"""Running sums of w and of w squared, in log space and float64, and the largest of the weights.

    .. math:: \log \sum_k w_k, \qquad \log \sum_k w_k^2

    Args:
        size: Number of data B.
        device: Where the log-weights are.
        num_samples: How many particles will be added: the largest M + 1 of them are kept for k-hat. Without it none
            are.

    Attributes:
        largest: The largest log-weights in descending order, shape ``(M + 1, B)``, for `tail_shape`; no rows where
            there are too few weights for a tail.
    """

    def __init__(self, size: int, device: torch.device, num_samples: int = 0) -> None:
        self.log_sum = torch.full((size,), -math.inf, dtype=torch.float64, device=device)
        self.log_sum_squares = self.log_sum.clone()
        self.count = 0
        kept = tail_length(num_samples) + 1
        self.largest = self.log_sum.expand(kept if kept > 5 else 0, size)  # five or more make a tail

    def add(self, log_w: Float[Tensor, "K B"]) -> None:
        """Add a chunk of particles: log-weights in nats, shape ``(K, B)``."""
        log_w = log_w.double()
        self.log_sum = torch.logaddexp(self.log_sum, log_w.logsumexp(0))
        self.log_sum_squares = torch.logaddexp(self.log_sum_squares, (2 * log_w).logsumexp(0))
        self.count += len(log_w)
        if len(self.largest):
            self.largest = torch.cat([self.largest, log_w]).topk(len(self.largest), dim=0).values

    def log_mean(self) -> Float[Tensor, " B"]:
        """Give the log of the mean weight, in nats: the estimate of log p(x)."""
        return self.log_sum - math.log(self.count)

    def ess(self) -> Float[Tensor, " B"]:
        r"""Give the effective sample size :math:`(\sum w)^2 / \sum w^2`, from 1 to K; 0 if all weights are 0."""
        return torch.where(self.log_sum.isneginf(), 0.0, (2 * self.log_sum - self.log_sum_squares).exp())
