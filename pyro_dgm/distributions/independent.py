# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Dimensions declared as parts of one datum, without a copy where a plate has nothing to expand."""

from typing import Any

import pyro.distributions as dist
import torch


class Independent(dist.Independent):
    """Pyro's Independent, which `expand` returns as it is if it has the batch shape already.

    A plate expands every distribution in it, and an encoder's output nearly always has its shape already: the new
    distribution, the views and their backward pass are then saved.
    """

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None) -> dist.Independent:
        """Return a distribution of this batch shape."""
        if _instance is None and torch.Size(batch_shape) == self.batch_shape:
            return self
        return super().expand(torch.Size(batch_shape), _instance)
