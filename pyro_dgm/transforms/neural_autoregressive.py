# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Neural autoregressive flow (NAF): a small monotone network bends every element; sampling is one pass."""

from collections.abc import Sequence

from torch import nn

from pyro_dgm.transforms.autoregressive import Autoregressive
from pyro_dgm.transforms.sigmoidal import Sigmoidal


class NeuralAutoregressive(Autoregressive):
    r"""Map every element by a mean of sigmoids that the elements of x before it choose.

    .. math:: y_i = \sigma^{-1}\Big(\sum_k w_{ik}\, \sigma(a_{ik} x_i + b_{ik})\Big), \qquad (a_i, b_i, w_i) = f(x_{<i})

    Sampling, and the density of a sample, is one pass of a MADE; the inverse, which scores any point, solves one
    increasing equation for each element, to rounding, with gradients by the implicit function theorem. Every y has
    an x. `Invert` makes it a density model of data that scores in one pass.

    It is the deep sigmoidal flow (DSF) of one layer; a `Stack` of several takes the place of its further layers.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which reaches every layer of the network; None for none.
        units: Number of sigmoids of an element: 8 or 16 in the paper.
        hidden: Widths of the network's hidden layers.
        order: The dimensions from first to last; None for 0 to D - 1.
        activation: Nonlinearity of the network; it acts on each number alone.

    Raises:
        ValueError: If a size is not positive, the order is no permutation, or the activation has parameters.

    Source: Huang et al. (ICML 2018), arXiv:1804.00779, section 3.1. There the slopes have no lower limit.

    Example:
        >>> flow = NeuralAutoregressive(3, units=4)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        units: int = 8,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(
            dim,
            Sigmoidal(units),
            context_dim=context_dim,
            hidden=hidden,
            order=order,
            activation=activation,
            parallel="forward",
        )
