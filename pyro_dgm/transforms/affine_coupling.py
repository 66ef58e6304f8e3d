# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Affine coupling (RealNVP): some elements scale and shift the others."""

from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.base import Size
from pyro_dgm.transforms.coupling import Coupling, CouplingNet, Passing


class AffineCoupling(Coupling):
    r"""Scale and shift the elements outside a mask by what the elements inside it say.

    .. math:: y_A = x_A, \qquad y_i = x_i\, e^{s_i(x_A)} + t_i(x_A) \text{ for } i \notin A,
              \qquad \log|\det J| = \sum_{i \notin A} s_i(x_A)

    Both directions are one pass. Starts as the identity.

    Args:
        shape: Number of dimensions D, or the shape ``(C, H, W)`` of an image.
        context_dim: Size H of a context, which the network sees beside the elements; None for none. An image's
            coupling also takes the shape ``(H, height, width)`` of a context of its own height and width.
        mask: For each dimension, or channel of an image, whether it passes through unchanged. None: the first half
            does. Of an image, ``"checkerboard"`` lets the pixels pass whose row and column add up to an even number.
        swap: Whether what passes and what is changed trade places.
        net: Makes the network, called as ``net((kept + H,), (D - kept, 2))`` with the number of elements that are
            kept, an `MLP` if None; for images in channels, as `Coupling` says, a `ConvNet` if None.
            `functools.partial` sets its options.
        bound: Bound of the log-scales s, smooth and both ways; 3 lets an element shrink or grow by a factor of 20.

    Raises:
        ValueError: If a size or the bound is not positive, or the mask has the wrong length, keeps everything, or
            keeps nothing where there is no context either.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.2, with the mask of section 3.4 as lists of indices.

    Example:
        >>> flow = AffineCoupling(3, mask=[True, True, False], context_dim=2)
        >>> y, logdet = flow.condition(torch.zeros(5, 2)).forward_and_logdet(torch.ones(5, 3))
        >>> y.shape, logdet.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        shape: Size,
        *,
        context_dim: Size | None = None,
        mask: Passing | None = None,
        swap: bool = False,
        net: CouplingNet | None = None,
        bound: int | float = 3.0,
    ) -> None:
        super().__init__(shape, ElementwiseAffine(float(bound)), context_dim=context_dim, mask=mask, swap=swap, net=net)
