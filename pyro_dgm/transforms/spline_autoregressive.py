# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Spline autoregressive flow: every element is bent by a spline that the elements before it choose."""

from collections.abc import Sequence

from torch import nn

from pyro_dgm.transforms.autoregressive import Autoregressive
from pyro_dgm.transforms.rational_quadratic import RationalQuadratic


class SplineAutoregressive(Autoregressive):
    r"""Bend every element by a monotone rational-quadratic spline, as the elements of y before it say.

    .. math:: x_i = S^{-1}(y_i; r_i(y_{<i}))

    S maps ``[-bound, bound]`` onto itself and is the identity outside; `RationalQuadratic` says how. The inverse, which
    scores, is one pass of a MADE; sampling goes through the elements one by one. Data should be standardised, so that
    they lie within the bound.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which reaches every layer of the network; None for none.
        hidden: Widths of the network's hidden layers.
        order: The dimensions from first to last; None for 0 to D - 1.
        activation: Nonlinearity of the network; it acts on each number alone.
        bins: Number of bins of a spline.
        bound: Half the width of the interval that splines bend.

    Raises:
        ValueError: If a size or the bound is not positive, there are fewer than 2 or more than 99 bins, the order is no
            permutation, or the activation has parameters.

    Source: Durkan et al. (NeurIPS 2019), arXiv:1906.04032, section 3.

    Example:
        >>> flow = SplineAutoregressive(3, bins=4)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.ReLU,
        bins: int = 8,
        bound: int | float = 5.0,
    ) -> None:
        super().__init__(
            dim,
            RationalQuadratic(bins, bound),
            context_dim=context_dim,
            hidden=hidden,
            order=order,
            activation=activation,
            parallel="inverse",
        )
