# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which distributions fall into one for each latent dimension, so that numbers can be given per dimension."""

import torch
from torch import Tensor
from torch.distributions import Distribution


def elementwise(fn: Distribution) -> Distribution | None:
    """Open a distribution whose dimensions are independent.

    Args:
        fn: The distribution of a site, of batch shape ``(*batch)`` and event shape ``(*event)``.

    Returns:
        The distribution of single dimensions, of batch shape ``(*batch, *event)``; ``None`` if the dimensions are not
        independent or nothing says that they are (a full covariance, a flow, a mixture).

    >>> import pyro.distributions as dist
    >>> elementwise(dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)).batch_shape
    torch.Size([5, 2])
    >>> elementwise(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))) is None
    True
    """
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn if not fn.event_shape else None


def by_dimension(log_prob: Tensor, batch: int) -> Tensor:
    """Flatten what stands behind the first ``batch`` dimensions of an elementwise log-probability: ``(*batch, L)``."""
    return log_prob.unsqueeze(-1) if log_prob.dim() == batch else log_prob.flatten(batch)
