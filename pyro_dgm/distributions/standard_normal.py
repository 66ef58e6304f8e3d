# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The usual prior of a VAE: a normal distribution of mean 0 and variance 1 in every latent dimension."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.nn.shape import positive_shape


class StandardNormal(nn.Module):
    """Give the prior N(0, I) on the device and in the dtype of the module.

    Args:
        latent: Number L of latent dimensions.

    Raises:
        ValueError: If ``latent`` is not positive.

    Example:
        >>> StandardNormal(3)().sample().shape
        torch.Size([3])
    """

    zero: Tensor
    one: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        (self.latent,) = positive_shape(self, "latent", (latent,))
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self.register_buffer("one", torch.ones(latent), persistent=False)

    def forward(self) -> Distribution:
        """Return N(0, I) with ``batch_shape`` ``()`` and ``event_shape`` ``(L,)``."""
        return Independent(Normal(self.zero, self.one), 1)
