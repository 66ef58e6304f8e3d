# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Lay elementwise log-probabilities out by latent dimension, so that numbers can be given for each."""

from torch import Tensor


def by_dimension(log_prob: Tensor, batch: int) -> Tensor:
    """Flatten what stands behind the first ``batch`` dimensions of an elementwise log-probability: ``(*batch, L)``."""
    return log_prob.unsqueeze(-1) if log_prob.dim() == batch else log_prob.flatten(batch)
