# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A learned prior: a mixture of normal distributions with free centres, scales and weights."""

import math

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyro_dgm.nn.shape import positive_shape


class NormalMixture(nn.Module):
    r"""Give the prior :math:`\sum_j \pi_j N(\mu_j, \mathrm{diag}(\sigma_j^2))` with J learned components.

    It starts with equal weights, centres drawn from N(0, 1/2) and variances of 1/2: the mixture as a whole has about
    zero mean and unit variance, like the standard normal it replaces, and no two components are alike.

    Args:
        latent: Number L of latent dimensions.
        components: Number J of components.

    Raises:
        ValueError: If ``latent`` or ``components`` is not positive.

    Source: the mixture of Gaussians with which Tomczak & Welling (AISTATS 2018), arXiv:1705.07120, compare theirs.

    Example:
        >>> NormalMixture(3, components=5)().sample((2,)).shape
        torch.Size([2, 3])
    """

    def __init__(self, latent: int, *, components: int = 10) -> None:
        super().__init__()
        (self.latent,) = positive_shape(self, "latent", (latent,))
        (self.components,) = positive_shape(self, "components", (components,))
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent) * 0.5**0.5)
        self.raw_scale = nn.Parameter(torch.full((components, latent), math.log(math.expm1(0.5**0.5))))

    def forward(self) -> Distribution:
        """Return the mixture with ``batch_shape`` ``()`` and ``event_shape`` ``(L,)``."""
        scale = softplus(self.raw_scale) + torch.finfo(self.raw_scale.dtype).eps
        components = dist.Normal(self.loc, scale).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)
