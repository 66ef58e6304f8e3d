# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The bell curve, which scores a whole vector in fewer passes than number by number."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor


class Normal(dist.Normal):
    r"""Pyro's Normal with the log-density of many independent numbers at once.

    .. math:: \sum_i \log N(x_i; \mu_i, \sigma_i^2)
              = -\frac12 \sum_i \frac{(x_i - \mu_i)^2}{\sigma_i^2} - \sum_i \log \sigma_i - \frac{n}{2} \log 2 \pi

    Without gradients, the logarithms are taken of the scales as they were before a plate repeated them.

    Args:
        loc: Mean, shape ``(*batch)``.
        scale: Standard deviation, positive, broadcastable with the mean.

    Raises:
        ValueError: If (with validation on) a scale is not positive or a value is not a number.

    Example:
        >>> Normal(torch.zeros(2), torch.ones(2)).summed_log_prob(torch.zeros(2), 1)
        tensor(-1.8379)
    """

    def summed_log_prob(self, value: Tensor, dims: int) -> Tensor:
        """Return log p(value) in nats, summed over the last ``dims`` dimensions."""
        if self._validate_args:
            self._validate_sample(value)
        if dims == 0:
            return self.log_prob(value)
        errors = (value - self.loc) / self.scale
        summed, event = tuple(range(-dims, 0)), errors.shape[-dims:]
        log_scale = _unrepeated(self.scale).log()
        log_scale = log_scale.expand(*log_scale.shape[:-dims], *event).sum(summed)
        return -0.5 * errors.square().sum(summed) - (log_scale + 0.5 * math.prod(event) * math.log(2 * math.pi))


def _unrepeated(x: Tensor) -> Tensor:
    """Take back what `expand` did: one entry in each dimension that only repeats, unless each has its own gradient."""
    if x.requires_grad and torch.is_grad_enabled():
        return x
    for dim in range(x.dim()):
        if x.stride(dim) == 0:
            x = x.narrow(dim, 0, 1)
    return x
