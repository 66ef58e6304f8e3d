# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which distributions fall into one for each latent dimension, so that numbers can be given per dimension."""

from torch import Tensor

from pyro_dgm.infer.latent_site import elementwise

__all__ = ["by_dimension", "elementwise"]


def by_dimension(log_prob: Tensor, batch: int) -> Tensor:
    """Flatten what stands behind the first ``batch`` dimensions of an elementwise log-probability: ``(*batch, L)``."""
    return log_prob.unsqueeze(-1) if log_prob.dim() == batch else log_prob.flatten(batch)
