# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Some channels of an image are normal given the others: where a multi-scale flow takes latents out."""

from functools import partial

import torch
from torch import Tensor

from pyro_dgm.nn.conv_net import ConvNet
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform, Parameters, Size
from pyro_dgm.transforms.coupling import CouplingNet

_NET: CouplingNet = partial(ConvNet, hidden=(), kernels=(3,))


class Split(FlowTransform):
    r"""Let the last channels be normal given the first: scale and shift noise by what the channels that stay say.

    .. math:: p(z_2 \mid z_1) = N(z_2; \mu(z_1), \sigma(z_1)^2), \qquad
              (z_1, \varepsilon) \mapsto (z_1, \mu(z_1) + \sigma(z_1) \odot \varepsilon)

    As a flow it maps ``(C, H, W)`` to the same shape; :meth:`part` and :meth:`join` cut in two what has been mapped.
    Starts as the standard normal, which is the identity.

    Args:
        shape: Shape ``(C, H, W)`` of z, both parts of it.
        keep: Number of channels of z1, which stay; None for C // 2.
        net: Makes the network of mu and log sigma, called as ``net((keep + H, height, width), (2 * (C - keep), height,
            width))``; None takes a single 3x3 convolution, which starts as zeros.
        learned: Whether there is a network at all; otherwise z2 is standard normal.
        context_dim: Size H of a context, or the shape of one, as an `AffineCoupling` takes; None for none.
        bound: Bound of log sigma, smooth and both ways.

    Attributes:
        keep: Number of channels that stay.
        kept_shape: Shape of z1.
        factored_shape: Shape of z2.

    Raises:
        ValueError: If the shape is not that of an image, ``keep`` is no integer, no channel or every channel would
            stay, or there is a context and nothing to learn.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 3 and their code, for the learned one; Dinh et
    al. (ICLR 2017), arXiv:1605.08803, section 3.6, where z2 is standard normal.

    Example:
        >>> split = Split((4, 8, 8), keep=1)
        >>> z = split(torch.randn(5, 4, 8, 8))
        >>> kept, out = split.part(z)
        >>> kept.shape, out.shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5, 3, 8, 8]))
    """

    def __init__(
        self,
        shape: Size,
        *,
        keep: int | None = None,
        net: CouplingNet | None = None,
        learned: bool = True,
        context_dim: Size | None = None,
        bound: int | float = 3.0,
    ) -> None:
        super().__init__(shape, context_dim=context_dim)
        if len(self.shape) != 3:
            raise ValueError(f"Split got shape={self.shape}: it needs that of an image, (C, H, W).")
        channels = self.shape[0]
        self.keep = channels // 2 if keep is None else keep
        if not isinstance(self.keep, int):
            raise ValueError(f"Split got keep={keep}: it must be a number of channels, an integer, or None for half.")
        if not 0 < self.keep < channels:
            what = "everything" if self.keep < 1 else "nothing"
            need = f"it must lie in 1 ... {channels - 1}" if channels > 1 else "two channels are the fewest"
            raise ValueError(
                f"Split got keep={self.keep} for shape={self.shape}: it would factor out {what}; {need}. A Squeeze in "
                f"front makes four channels of one."
            )
        if context_dim is not None and not learned:
            raise ValueError(
                f"Split got context_dim={context_dim} and learned=False: the standard normal has no use for a context; "
                f"leave one of them out."
            )
        self.kept_shape = (self.keep, *self.shape[1:])
        self.factored_shape = (channels - self.keep, *self.shape[1:])
        self.prior = None
        if learned:
            mask = [i < self.keep for i in range(channels)]
            net = _NET if net is None else net
            self.prior = AffineCoupling(self.shape, mask=mask, net=net, context_dim=context_dim, bound=bound)

    def part(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Cut z, shape ``(*batch, C, H, W)``, into the channels that stay and those that are factored out."""
        kept, out = z.split([self.keep, self.shape[0] - self.keep], -3)
        return kept, out

    def join(self, kept: Tensor, out: Tensor) -> Tensor:
        """Put both together again; the leading dimensions of the two broadcast."""
        if kept.shape[-3:] != self.kept_shape or out.shape[-3:] != self.factored_shape:
            raise ValueError(
                f"Split({self.shape}, keep={self.keep}).join got {tuple(kept.shape)} and {tuple(out.shape)}: the last "
                f"sizes of what stays must be {self.kept_shape}, and {self.factored_shape} of what is factored out."
            )
        batch = torch.broadcast_shapes(kept.shape[:-3], out.shape[:-3])
        return torch.cat([kept.expand(*batch, *self.kept_shape), out.expand(*batch, *self.factored_shape)], -3)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give the context as it is: the network sees it together with what stays."""
        return () if self.prior is None else self.prior.bind(context)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if self.prior is None:
            return x, x.new_zeros(x.shape[:-3])
        return self.prior._forward_and_logdet(x, parameters)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if self.prior is None:
            return y, y.new_zeros(y.shape[:-3])
        return self.prior._inverse_and_logdet(y, parameters)
