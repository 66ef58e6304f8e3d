# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A posterior of any form: a simple one, bent by a flow whose parameters come from the datum."""

import math
from collections.abc import Callable

import pyro.distributions as dist
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from pyro_dgm.distributions.diagonal_normal import DiagonalNormal
from pyro_dgm.distributions.head import Head
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.householder_sylvester import HouseholderSylvester
from pyro_dgm.transforms.make_flow import make_flow


class FlowPosterior(Head):
    r"""Read raw numbers a, b of shape ``(*batch, 2 * context)`` as gated features h, and make all of q from those.

    .. math:: h = a \odot \sigma(b), \qquad z_0 \sim q_0(z_0 \mid h), \qquad z = f(z_0; \lambda(h)), \qquad
              \log q(z \mid x) = \log q_0(z_0 \mid h) - \log |\det \partial f / \partial z_0|

    The base's parameters are one linear map of h, and so, in the flows of this package, are the flow's: behind a gated
    encoder with one layer less, this is the paper's network. Drawing z and scoring it is one pass through the flow;
    another point is scored by the flow's inverse.

    Args:
        latent: Dimension L of z.
        flow: Makes the flow from ``latent``; it is given ``context_dim=context`` if it has such an option. One that has
            none, or that ignores it, is the same for all data.
        context: Size H of h, of which the encoder puts out twice as many numbers; 256 is that of the paper.
        base: Makes from ``latent`` the head of the base distribution.

    Raises:
        ValueError: If a size is not positive, or the flow is none, of another dimension or another context.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770, section 4; van den Berg et al. (UAI 2018),
    arXiv:1803.05649, section 4.

    Example:
        >>> from functools import partial
        >>> from pyro_dgm.transforms import Planar
        >>> head = FlowPosterior(2, flow=partial(Planar, depth=4), context=8)
        >>> q = head(torch.randn(5, 16))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(
        self,
        latent: int,
        *,
        flow: Callable[[int], FlowTransform] = HouseholderSylvester,
        context: int = 256,
        base: Callable[[int], Head] = DiagonalNormal,
    ) -> None:
        (context,) = positive_shape(self, "context", (context,))
        super().__init__((2 * context,))
        self.latent = latent
        self.base = base(latent)
        self.base_parameters = nn.Linear(context, math.prod(self.base.in_shape))
        self.flow = make_flow(self, flow, latent, context=context, stock=True)

    def distribution(self, raw: Tensor) -> Distribution:
        """Return the push-forward of the base, of ``event_shape`` ``(L,)``."""
        h = functional.glu(raw)
        base = self.base(self.base_parameters(h).unflatten(-1, self.base.in_shape))
        amortised = isinstance(self.flow, ConditionalTransform) and getattr(self.flow, "context_dim", ...) is not None
        return dist.TransformedDistribution(base, [self.flow.condition(h) if amortised else self.flow])
