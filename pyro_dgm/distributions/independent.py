# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Dimensions declared as parts of one datum, without work where there is nothing to do."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class Independent(dist.Independent):
    """Pyro's Independent without work that changes nothing.

    `expand` returns it as it is if it has the batch shape already: a plate expands every distribution in it, and an
    encoder's output nearly always has its shape, so the new distribution, the views and their backward pass are saved.
    A base that knows a faster sum than term by term, ``summed_log_prob(value, dims)``, is asked for it.
    """

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None) -> dist.Independent:
        """Return a distribution of this batch shape."""
        if _instance is None and torch.Size(batch_shape) == self.batch_shape:
            return self
        return super().expand(torch.Size(batch_shape), _instance)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value) in nats, of shape ``batch_shape``."""
        summed = getattr(self.base_dist, "summed_log_prob", None)
        if summed is None:
            return super().log_prob(value)
        return summed(value, self.reinterpreted_batch_ndims)
