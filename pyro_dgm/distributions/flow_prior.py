# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A prior of any form, learned with the model: a standard normal distribution, bent by a flow."""

from collections.abc import Callable

import pyro.distributions as dist
from torch import nn
from torch.distributions import Distribution

from pyro_dgm.distributions.standard_normal import StandardNormal
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.make_flow import make_flow
from pyro_dgm.transforms.masked_autoregressive import MaskedAutoregressive


class FlowPrior(nn.Module):
    r"""Give the distribution of f(u), u from N(0, I), on the device and in the dtype of the module.

    .. math:: \log p(z) = \log \mathcal{N}(f^{-1}(z); 0, I) + \log |\det \partial f^{-1} / \partial z|

    Training scores samples of the posterior, which runs the flow's inverse; dreaming runs it forward. Take a flow whose
    inverse is fast: a masked autoregressive one, a coupling, a spline.

    Args:
        latent: Number L of latent dimensions.
        flow: Makes the flow from ``latent``.

    Raises:
        ValueError: If ``latent`` is not positive, or the flow is none, of another dimension, or needs a context.

    Source: Chen et al., Variational Lossy Autoencoder (ICLR 2017), arXiv:1611.02731, section 3.2.

    Example:
        >>> from pyro_dgm.transforms import AffineCoupling
        >>> FlowPrior(3, flow=AffineCoupling)().sample().shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, flow: Callable[[int], FlowTransform] = MaskedAutoregressive) -> None:
        super().__init__()
        self.base = StandardNormal(latent)
        self.flow = make_flow(self, flow, latent, stock=True)

    def forward(self) -> Distribution:
        """Return p(z) with ``batch_shape`` ``()`` and ``event_shape`` ``(L,)``."""
        return dist.TransformedDistribution(self.base(), [self.flow])
