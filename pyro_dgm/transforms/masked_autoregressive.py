# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Masked autoregressive flow (MAF): a density whose every conditional is normal; scoring is one pass."""

from collections.abc import Sequence

from torch import nn

from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.autoregressive import Autoregressive


class MaskedAutoregressive(Autoregressive):
    r"""Shift and scale every element by what the elements of y before it say.

    .. math:: y_i = x_i\, e^{s_i(y_{<i})} + t_i(y_{<i}), \qquad x_i = (y_i - t_i(y_{<i}))\, e^{-s_i(y_{<i})}

    From standard normal noise x this is :math:`p(y) = \prod_i N(y_i; t_i, e^{2 s_i})`. The inverse, which scores, is
    one pass of a MADE; sampling computes every hidden unit once, when the elements that it sees are known. The inverse
    is itself an inverse autoregressive flow, whose elementwise map is that of this one inverted.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which reaches every layer of the network; None for none.
        hidden: Widths of the network's hidden layers.
        order: The dimensions from first to last; None for 0 to D - 1.
        activation: Nonlinearity of the network; it acts on each number alone.
        bound: Bound of the log-scales s: slopes lie between :math:`e^{-b}` and :math:`e^b`.

    Raises:
        ValueError: If a size or the bound is not positive, the order is no permutation, or the activation has
            parameters.

    Source: Papamakarios et al. (NeurIPS 2017), arXiv:1705.07057, section 3; there s is not bounded.

    Example:
        >>> maf = MaskedAutoregressive(3, order=[2, 0, 1])
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(maf.inv(maf(x)), x, atol=1e-5)
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
        bound: int | float = 3.0,
    ) -> None:
        super().__init__(
            dim,
            ElementwiseAffine(bound),
            context_dim=context_dim,
            hidden=hidden,
            order=order,
            activation=activation,
            parallel="inverse",
        )
