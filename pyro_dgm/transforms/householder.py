# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Householder flow: turn space by reflections, which leaves volumes as they are."""

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.reflections import reflect, reflect_back, reflections
from pyro_dgm.transforms.rows import on_rows
from pyro_dgm.transforms.start_small import start_small


class Householder(FlowTransform):
    r"""Reflect x at planes through the origin, one after the other.

    .. math:: y = H_L \cdots H_1 x, \qquad H_l = I - 2 \frac{v_l v_l^T}{\|v_l\|^2}, \qquad \log|\det J| = 0

    The product is applied in compact form, see :func:`reflections`; its transpose is the inverse. A vector v = 0
    reflects nothing. Amortised, it turns a diagonal normal distribution into one with correlations.

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        reflections: Number L of reflections; more than D are never needed. An odd number mirrors, an even one rotates.
        context_net: Makes the network that gives all L D parameters.

    Raises:
        ValueError: If a size is not positive.

    Source: Tomczak & Welling (2016), arXiv:1611.09630. There each vector but the first is computed from the
    one before; here all are from the context, or learned.

    Example:
        >>> flow = Householder(3, reflections=2)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow(x).norm(dim=-1), x.norm(dim=-1))
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        reflections: int = 8,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        (count,) = positive_shape(self, "reflections", (reflections,))
        self.values = FlowParameters({"vectors": torch.randn(count, dim)}, context_dim, context_net)
        if context_dim is not None:
            start_small(self.values.net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give the two thin matrices of the product, shape ``(*batch, L, D)``."""
        return reflections(*self.values(context))

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        y = on_rows(lambda rows: reflect_back(rows, parameters), x, parameters[0])
        return y, _zeros(x)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return on_rows(lambda rows: reflect(rows, parameters), y, parameters[0]), _zeros(y)


def _zeros(x: Tensor) -> Tensor:
    return x.new_zeros(()).expand(x.shape[:-1])
