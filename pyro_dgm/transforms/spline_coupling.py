# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Spline coupling (neural spline flow): some elements say how splines bend the others."""

from pyro_dgm.transforms.base import Size
from pyro_dgm.transforms.coupling import Coupling, CouplingNet, Passing
from pyro_dgm.transforms.rational_quadratic import RationalQuadratic


class SplineCoupling(Coupling):
    r"""Bend the elements outside a mask by monotone rational-quadratic splines, as the elements inside it say.

    .. math:: y_A = x_A, \qquad y_i = S(x_i; r_i(x_A)) \text{ for } i \notin A

    S maps ``[-bound, bound]`` onto itself and is the identity outside; `RationalQuadratic` says how. Both directions
    are one pass. Starts as the identity. Data should be standardised, so that they lie within the bound.

    Args:
        shape: Number of dimensions D, or the shape ``(C, H, W)`` of an image.
        context_dim: Size H of a context, which the network sees beside the elements; None for none. An image's
            coupling also takes the shape ``(H, height, width)`` of a context of its own height and width.
        mask: For each dimension, or channel of an image, whether it passes through unchanged. None: the first half
            does. Of an image, ``"checkerboard"`` lets the pixels pass whose row and column add up to an even number.
        swap: Whether what passes and what is changed trade places.
        net: Makes the network, called as ``net((kept + H,), (D - kept, 3 * bins - 1))`` with the number of elements
            that are kept, an `MLP` if None; for images in channels, as `Coupling` says, a `ConvNet` if None.
            `functools.partial` sets its options.
        bins: Number of bins of a spline.
        bound: Half the width of the interval that splines bend.

    Raises:
        ValueError: If a size or the bound is not positive, there are fewer than 2 or more than 99 bins, or the mask has
            the wrong length, keeps everything, or keeps nothing where there is no context either.

    Source: Durkan et al. (NeurIPS 2019), arXiv:1906.04032, section 3. There the elements that condition the others are
    bent too, by splines of their own.

    Example:
        >>> flow = SplineCoupling(2, bins=4)
        >>> x = torch.randn(5, 2)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        shape: Size,
        *,
        context_dim: Size | None = None,
        mask: Passing | None = None,
        swap: bool = False,
        net: CouplingNet | None = None,
        bins: int = 8,
        bound: int | float = 5.0,
    ) -> None:
        super().__init__(shape, RationalQuadratic(bins, bound), context_dim=context_dim, mask=mask, swap=swap, net=net)
