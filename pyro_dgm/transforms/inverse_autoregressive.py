# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Inverse autoregressive flow (IAF): a posterior with full dependence; sampling is one pass."""

from collections.abc import Sequence

from torch import nn

from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.autoregressive import Autoregressive
from pyro_dgm.transforms.gated_affine import GatedAffine


class InverseAutoregressive(Autoregressive):
    r"""Shift and scale every element by what the elements of x before it say.

    .. math:: y_i = x_i\, e^{s_i(x_{<i})} + t_i(x_{<i})

    With ``gated`` it is the paper's numerically stable form, a mean of the element and a new number:

    .. math:: y_i = g_i\, x_i + (1 - g_i)\, m_i, \qquad g_i = \sigma(a_i), \qquad (a_i, m_i) = f(x_{<i})

    Sampling, and the density of a sample, is one pass of a MADE; the inverse, which scores any point, computes every
    hidden unit once, when the elements it sees are known.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which reaches every layer of the network; None for none.
        hidden: Widths of the network's hidden layers.
        order: The dimensions from first to last; None for 0 to D - 1.
        activation: Nonlinearity of the network; it acts on each number alone.
        gated: Use the stable form.
        forget_bias: Initial logit of the gates, where gated: 1 or 2 in the paper.
        bound: Bound of the log-scales s, where not gated: slopes lie between :math:`e^{-b}` and :math:`e^b`.

    Raises:
        ValueError: If a size or the bound is not positive, the order is no permutation, or the activation has
            parameters.

    Source: Kingma et al. (NeurIPS 2016), arXiv:1606.04934, sections 3-4, algorithm 1; there s is not bounded.

    Example:
        >>> iaf = InverseAutoregressive(3, gated=True)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(iaf.inv(iaf(x)), x, atol=1e-5)
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
        gated: bool = False,
        forget_bias: int | float = 1.0,
        bound: int | float = 3.0,
    ) -> None:
        super().__init__(
            dim,
            GatedAffine(forget_bias) if gated else ElementwiseAffine(bound),
            context_dim=context_dim,
            hidden=hidden,
            order=order,
            activation=activation,
            parallel="forward",
        )
