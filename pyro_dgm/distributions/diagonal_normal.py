# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The usual posterior of a VAE: a normal distribution without correlations between the latent dimensions."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyro_dgm.distributions.head import Head
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal

Scale = Literal["softplus", "exp", "softplus_variance"]


class DiagonalNormal(Head):
    """Read raw numbers of shape ``(*batch, 2 L)`` as L means and L scales of independent normals.

    Args:
        latent: Number L of latent dimensions.
        scale: How the second half r becomes the standard deviation: ``softplus(r)`` (Davidson et al. 2018),
            ``exp(r)`` (Burda et al. 2016, section 5), or ``sqrt(softplus(r))``, i.e. a softplus variance (van den
            Berg et al. 2018). To the standard deviation, or the variance, the machine epsilon is added (1e-7 in
            float32), lest it underflow to zero. ``exp`` overflows for r > 44 in float32.

    Raises:
        ValueError: If ``latent`` is not positive or ``scale`` is unknown.

    Example:
        >>> q = DiagonalNormal(2, scale="exp")(torch.zeros(5, 4))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, latent: int, *, scale: Scale = "softplus") -> None:
        if scale not in get_args(Scale):
            raise ValueError(f"DiagonalNormal got scale={scale!r}: it must be one of {', '.join(get_args(Scale))}.")
        super().__init__((2 * latent,))
        self.latent = latent
        self.scale = scale

    def distribution(self, raw: Tensor) -> Distribution:
        """Return independent normals of ``event_shape`` ``(L,)``."""
        loc, scale = raw.chunk(2, dim=-1)
        scale = scale.exp() if self.scale == "exp" else softplus(scale)
        scale = scale + torch.finfo(raw.dtype).eps
        return Independent(Normal(loc, scale.sqrt() if self.scale == "softplus_variance" else scale), 1)
