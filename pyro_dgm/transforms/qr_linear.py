# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An invertible matrix, kept as a rotation made of reflections and a triangle with a positive diagonal."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.reflections import reflect, reflect_back, reflections
from pyro_dgm.transforms.rows import on_rows
from pyro_dgm.transforms.start_small import start_small

Start = Literal["identity", "rotation"]


class QRLinear(FlowTransform):
    r"""Multiply by a matrix that is invertible whatever its parameters, and add a bias.

    .. math:: y = Q R x + b, \qquad \log|\det J| = \sum_i s_i, \quad r_{ii} = e^{s_i}

    Q is a product of K Householder reflections, R upper triangular. Every matrix whose determinant has the sign
    :math:`(-1)^K` is such a product if K is D or more. The inverse turns back and solves one triangular system; only R
    can be ill-conditioned. An amortised matrix, one for each datum, starts nearly alike for all.

    Args:
        dim: Dimension D.
        context_dim: Size H of a context; None for one learned matrix.
        reflections: Number K. None takes D, or D - 1 if that is even, which is enough for every rotation; at least 2.
        start: Q R before training: the ``"identity"``, for which reflections come in equal pairs (of an odd number,
            one is left over), or a random ``"rotation"`` (which an odd number of reflections mirrors).
        bias: Whether there is a b.
        context_net: Makes the network from ``context_dim`` and the number of parameters, K D + D (D + 3) / 2, or
            K D + D (D + 1) / 2 without b.

    Raises:
        ValueError: If a size is not positive or ``start`` is unknown.

    Source: Tomczak & Welling (2016), arXiv:1611.09630, for Q; Hoogeboom, van den Berg & Welling (ICML 2019),
    arXiv:1901.11137, for Q R.

    Example:
        >>> flow = QRLinear(3)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        reflections: int | None = None,
        start: Start = "identity",
        bias: bool = True,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        if start not in get_args(Start):
            raise ValueError(f"QRLinear got start={start!r}: it must be one of {', '.join(get_args(Start))}.")
        if reflections is None:
            reflections = max(2, dim - dim % 2)
        (self.reflections,) = positive_shape(self, "reflections", (reflections,))
        equal = 2 if start == "identity" else 1  # two equal reflections are none
        vectors = torch.randn(-(-self.reflections // equal), dim).repeat_interleave(equal, 0)[: self.reflections]
        values = {"vectors": vectors, "triangle": torch.zeros(dim * (dim + 1) // 2)}
        values |= {"bias": torch.zeros(dim)} if bias else {}
        self.values = FlowParameters(values, context_dim, context_net)
        if context_dim is not None:
            start_small(self.values.net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Lay out Q in its compact form, R, the log-determinant and b; of the triangle, the diagonal holds s."""
        vectors, triangle, *bias = self.values(context)
        rows, columns = torch.triu_indices(self.dim, self.dim, device=triangle.device)
        square = triangle.new_zeros(*triangle.shape[:-1], self.dim**2)
        square = square.index_copy(-1, rows * self.dim + columns, triangle)
        square = square.unflatten(-1, (self.dim, self.dim))
        log_scale = square.diagonal(dim1=-2, dim2=-1)
        upper = square.triu(1) + log_scale.exp().diag_embed()
        return reflections(vectors), upper, log_scale.sum(-1), *bias

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        compact, upper, logdet, *bias = parameters
        y = on_rows(lambda rows: reflect(rows @ upper.mT, compact), x, upper)
        return sum(bias, y), logdet.expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        compact, upper, logdet, *bias = parameters

        def solve(rows: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(upper.mT, reflect_back(rows, compact), upper=False, left=False)

        return on_rows(solve, y - bias[0] if bias else y, upper), -logdet.expand(y.shape[:-1])
