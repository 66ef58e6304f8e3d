# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Variational dequantisation: a flow learns which noise between 0 and 1 suits each image."""

import math
from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.distributions.dequantizer import Dequantizer
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.nn.conv_net import ConvNet
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.coupling import Passing
from pyro_dgm.transforms.into_cells import IntoCells
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.make_image_flow import make_image_flow
from pyro_dgm.transforms.reshape import Reshape
from pyro_dgm.transforms.squeeze import Squeeze

Shape = tuple[int, ...]
SMALL = partial(ConvNet, hidden=(32, 32))
SPREAD = 3.0
"""Bound of what the log-scales of a pixel add up to: shared among the couplings that touch it, they spread its y by a
factor of 20 at most, however many there are."""


class VariationalDequantizer(Dequantizer):
    r"""Add noise from a flow g whose couplings see features h of the image.

    .. math:: v = x + \Phi(y), \qquad y = g(\epsilon; h(x)), \qquad \epsilon \sim \mathcal{N}(0, I), \qquad
              \log q(v \mid x) = \log \mathcal{N}(\epsilon) - \log|\det \partial y / \partial \epsilon|
              - \sum_i \log \mathcal{N}(y_i; 0, 1)

    :math:`\Phi` is the distribution function of N(0, 1), so that with g = identity, as which couplings start, q is
    uniform exactly: training begins at uniform dequantisation, whose bound it can only improve upon. (The paper has the
    logistic function instead, which is the same up to a fixed map of each y.) Drawing v and scoring it is one pass;
    another v is scored by the flow's inverse, with the precision that v - x has, and has density 0 outside the cell.
    Rounding never carries v to x + 1.

    Args:
        shape: Shape of one image, ``(H, W)`` or ``(C, H, W)``.
        levels: Number L of levels: data are integers 0 ... L - 1.
        flow: Makes g from ``(C, H, W)``; it is given ``context_dim=(context, H, W)``, an image, as couplings take it.
            None: ``depth`` affine couplings in which the two colours of a chessboard take turns, with small
            convolutional networks. Where height and width are even, these see squares of four pixels as four channels,
            in a quarter of the places; a single pixel sees nothing but the features.
        context: Number of channels of the features h.
        encoder: Makes from ``(C, H, W)`` and ``(context, H, W)``, or ``(4 C, H / 2, W / 2)`` and ``(context, H / 2,
            W / 2)`` for couplings of squares, the network that computes the features. It sees data scaled to [-1, 1].
        depth: Number of couplings, if ``flow`` is None.

    Raises:
        ValueError: If a size is not positive, the shape is not that of an image, there are fewer than 2 levels, or the
            flow is none, of another shape, or does not take the context.

    Source: Ho et al. (ICML 2019), arXiv:1902.00275, section 3.1.

    Example:
        >>> q = VariationalDequantizer((8, 8), 17)(torch.randint(17, (5, 8, 8)))
        >>> v = q.rsample()
        >>> v.shape, torch.allclose(q.log_prob(v), torch.zeros(5), atol=1e-4)
        (torch.Size([5, 8, 8]), True)
    """

    def __init__(
        self,
        shape: Shape,
        levels: int,
        *,
        flow: Callable[[Shape], FlowTransform] | None = None,
        context: int = 32,
        encoder: Callable[[Shape, Shape], nn.Module] = ConvNet,
        depth: int = 4,
    ) -> None:
        super().__init__(shape, levels)
        if len(self.shape) not in (2, 3):
            raise ValueError(f"VariationalDequantizer got shape={self.shape}: images have (H, W) or (C, H, W).")
        context, depth = (*positive_shape(self, "context", (context,)), *positive_shape(self, "depth", (depth,)))
        self.image_shape: Shape = (1,) * (3 - len(self.shape)) + self.shape
        halves = flow is None and all(size % 2 == 0 for size in self.image_shape[1:])
        self.squeeze = Squeeze(self.image_shape) if halves else None
        seen = self.image_shape if self.squeeze is None else self.squeeze.out_shape
        features = (context, *seen[1:])
        self.encoder = encoder(seen, features)
        self.flow = make_image_flow(self, flow or partial(_couplings, depth=depth), self.image_shape, context=features)
        self.reshape = None if self.image_shape == self.shape else Reshape(self.image_shape, self.shape)

    def distribution(self, low: Tensor) -> Distribution:
        """Give the push-forward of the noise into the cells."""
        flow, zero = self.flow.condition(self._features(low)), self.like.new_zeros(self.flow.shape)
        noise = Independent(Normal(zero, zero + 1), zero.dim())
        reshape = [] if self.reshape is None else [self.reshape]
        return dist.TransformedDistribution(noise, [flow, *reshape, IntoCells(low, len(self.shape))])

    def _features(self, low: Tensor) -> Tensor:
        """Encode images as one batch, since networks of images take a single leading dimension."""
        batch = low.shape[: low.dim() - len(self.shape)]
        scaled = low.reshape(math.prod(batch), *self.image_shape) * (2 / (self.levels - 1)) - 1
        if self.squeeze is not None:
            scaled = self.squeeze.forward_and_logdet(scaled)[0]
        return self.encoder(scaled).reshape(*batch, *(self.flow.context_shape or ()))


def _couplings(shape: Shape, *, context_dim: Shape, depth: int) -> FlowTransform:
    """Stack couplings in which the two colours of a chessboard take turns; a single pixel has features only."""
    single = shape[1:] == (1, 1)
    mask: Passing | None = [False] * shape[0] if single else "checkerboard"
    back: list[FlowTransform] = []
    if context_dim[1:] != shape[1:]:
        squeeze = Squeeze(shape)  # the first half of its channels is one colour
        shape, mask, back = squeeze.out_shape, None, [Invert(squeeze)]
    touching = depth if single else (depth + 1) // 2
    make = partial(AffineCoupling, shape, context_dim=context_dim, mask=mask, net=SMALL, bound=SPREAD / touching)
    return Compose([*(make(swap=bool(turn % 2) and not single) for turn in range(depth)), *back])
