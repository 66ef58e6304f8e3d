# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An invertible matrix, kept as a rotation made of reflections and a triangle with a positive diagonal."""

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.reflections import reflect, reflect_back, reflections
from pyro_dgm.transforms.rows import on_rows
from pyro_dgm.transforms.start_small import start_small


class QRLinear(FlowTransform):
    r"""Multiply by a matrix that is invertible whatever its parameters, and add a bias.

    .. math:: y = Q R x + b, \qquad \log|\det J| = \sum_i s_i, \quad r_{ii} = e^{s_i}

    Q is a product of K Householder reflections, R upper triangular. Every matrix whose determinant has the sign
    :math:`(-1)^K` is such a product if K is D or more. It starts as the identity: reflections come in equal pairs (of
    an odd number, one is left over). The inverse turns back and solves one triangular system; only R can be
    ill-conditioned. An amortised matrix, one for each datum, starts nearly alike for all.

    Args:
        dim: Dimension D.
        context_dim: Size H of a context; None for one learned matrix.
        reflections: Number K. None takes D, or D - 1 if that is even, which is enough for every rotation; at least 2.
        context_net: Makes the network from ``context_dim`` and the number of parameters, K D + D (D + 3) / 2.

    Raises:
        ValueError: If a size is not positive.

    Source: Tomczak & Welling (2016), arXiv:1611.09630, for Q; Hoogeboom, van den Berg & Welling (ICML 2019),
    arXiv:1901.11137, for Q R.

    Example:
        >>> flow = QRLinear(3)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    positions: Tensor

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        reflections: int | None = None,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        if reflections is None:
            reflections = max(2, dim - dim % 2)
        (self.reflections,) = positive_shape(self, "reflections", (reflections,))
        pairs = torch.randn((self.reflections + 1) // 2, dim).repeat_interleave(2, 0)
        rows, columns = torch.triu_indices(dim, dim)
        self.register_buffer("positions", rows * dim + columns, persistent=False)
        start = {
            "vectors": pairs[: self.reflections],
            "triangle": torch.zeros(dim * (dim + 1) // 2),
            "bias": torch.zeros(dim),
        }
        self.values = FlowParameters(start, context_dim, context_net)
        if context_dim is not None:
            start_small(self.values.net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Lay out Q in its compact form, R, b and the log-determinant; of the triangle, the diagonal holds s."""
        vectors, triangle, bias = self.values(context)
        square = triangle.new_zeros(*triangle.shape[:-1], self.dim**2).index_copy(-1, self.positions, triangle)
        square = square.unflatten(-1, (self.dim, self.dim))
        log_scale = square.diagonal(dim1=-2, dim2=-1)
        upper = square.triu(1) + log_scale.exp().diag_embed()
        return reflections(vectors), upper, bias, log_scale.sum(-1)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        compact, upper, bias, logdet = parameters
        y = on_rows(lambda rows: reflect(rows @ upper.mT, compact), x, upper)
        return y + bias, logdet.expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        compact, upper, bias, logdet = parameters

        def solve(rows: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(upper.mT, reflect_back(rows, compact), upper=False, left=False)

        return on_rows(solve, y - bias, upper), -logdet.expand(y.shape[:-1])
