# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Additive coupling (NICE): some elements shift the others; volume is preserved."""

from pyro_dgm.transforms.additive import ElementwiseShift
from pyro_dgm.transforms.base import Size
from pyro_dgm.transforms.coupling import Coupling, CouplingNet, Passing


class AdditiveCoupling(Coupling):
    r"""Shift the elements outside a mask by what the elements inside it say.

    .. math:: y_A = x_A, \qquad y_i = x_i + t_i(x_A) \text{ for } i \notin A, \qquad \log|\det J| = 0

    Both directions are one pass. Starts as the identity.

    Args:
        shape: Number of dimensions D, or the shape ``(C, H, W)`` of an image.
        context_dim: Size H of a context, which the network sees beside the elements; None for none. An image's
            coupling also takes the shape ``(H, height, width)`` of a context of its own height and width.
        mask: For each dimension, or channel of an image, whether it passes through unchanged. None: the first half
            does. Of an image, ``"checkerboard"`` lets the pixels pass whose row and column add up to an even number.
        swap: Whether what passes and what is changed trade places.
        net: Makes the network, called as ``net((kept + H,), (D - kept, 1))`` with the number of elements that are
            kept, an `MLP` if None; for images in channels, as `Coupling` says, a `ConvNet` if None.
            `functools.partial` sets its options.

    Raises:
        ValueError: If a size is not positive, or the mask has the wrong length, keeps everything, or keeps nothing
            where there is no context either.

    Source: Dinh et al. (ICLR workshop 2015), arXiv:1410.8516, section 3.2.

    Example:
        >>> flow = AdditiveCoupling(3, mask=[True, True, False])
        >>> flow.forward_and_logdet(torch.ones(2, 3))
        (tensor([[1., 1., 1.],
                 [1., 1., 1.]], grad_fn=...), tensor([0., 0.]))
    """

    def __init__(
        self,
        shape: Size,
        *,
        context_dim: Size | None = None,
        mask: Passing | None = None,
        swap: bool = False,
        net: CouplingNet | None = None,
    ) -> None:
        super().__init__(shape, ElementwiseShift(), context_dim=context_dim, mask=mask, swap=swap, net=net)
