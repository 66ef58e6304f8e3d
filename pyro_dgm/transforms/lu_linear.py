# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An invertible matrix, kept as a permutation and two triangles, whose determinant is a product of D numbers."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.permute import Permute
from pyro_dgm.transforms.rows import on_rows
from pyro_dgm.transforms.start_small import start_small

Start = Literal["identity", "permutation", "rotation"]


class LULinear(FlowTransform):
    r"""Multiply by a matrix that is invertible whatever its parameters, and add a bias.

    .. math:: y = P L U x + b, \qquad \log|\det J| = \sum_i \log|u_{ii}|, \quad u_{ii} = \pm e^{s_i}

    P is a fixed permutation, L lower triangular with ones on its diagonal, U upper triangular; the signs of U's
    diagonal are fixed too, so that training cannot move an eigenvalue through zero. The inverse solves two triangular
    systems; it is as exact as W is well-conditioned. An amortised W, one for each datum, starts nearly alike for all.

    Args:
        dim: Dimension D.
        context_dim: Size H of a context; None for one learned W.
        start: W before training: the ``"identity"``, a random ``"permutation"``, or a random ``"rotation"`` (which
            may also mirror) as in Glow. P and the signs stay as they are then, and are in the state_dict.
        bias: Whether there is a b.
        context_net: Makes the network from ``context_dim`` and D (D + 1), or D D without b, the number of parameters.

    Raises:
        ValueError: If a size is not positive or ``start`` is unknown.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 3.2, eq. 10, for vectors instead of channels;
    Oliva et al. (ICML 2018), arXiv:1801.09819, for the bias.

    Example:
        >>> flow = LULinear(3, start="rotation")
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    signs: Tensor

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        start: Start = "identity",
        bias: bool = True,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        if start not in get_args(Start):
            raise ValueError(f"LULinear got start={start!r}: it must be one of {', '.join(get_args(Start))}.")
        self.permutation = Permute.random(dim) if start == "permutation" else Permute(range(dim))
        sign, triangles = torch.ones(dim), torch.zeros(dim, dim)
        if start == "rotation":
            order, sign, triangles = _decompose(_rotation(dim))
            self.permutation.order, self.permutation.places = order, order.argsort()
        self.register_buffer("signs", sign)
        values = {"triangles": triangles} | ({"bias": torch.zeros(dim)} if bias else {})
        self.values = FlowParameters(values, context_dim, context_net)
        if context_dim is not None:
            start_small(self.values.net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Lay out L, U, the log-determinant and b; below, on and above its diagonal, one matrix holds L, s and U."""
        triangles, *bias = self.values(context)
        log_scale = triangles.diagonal(dim1=-2, dim2=-1)
        lower = triangles.tril(-1) + torch.ones_like(log_scale).diag_embed()
        upper = triangles.triu(1) + (self.signs * log_scale.exp()).diag_embed()
        return lower, upper, log_scale.sum(-1), *bias

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        lower, upper, logdet, *bias = parameters
        y = self.permutation.reorder(on_rows(lambda rows: rows @ upper.mT @ lower.mT, x, upper))
        return sum(bias, y), logdet.expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        lower, upper, logdet, *bias = parameters

        def solve(rows: Tensor) -> Tensor:
            rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
            return torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)

        x = on_rows(solve, self.permutation.restore(y - bias[0] if bias else y), upper)
        return x, -logdet.expand(y.shape[:-1])


def _rotation(dim: int) -> Tensor:
    """Draw an orthogonal matrix, in double precision."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))
    return q * r.diagonal().sign()


def _decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split a matrix into the order that P puts rows in, the signs of U's diagonal, and both triangles with log|u|."""
    permutation, lower, upper = torch.linalg.lu(matrix)
    diagonal = upper.diagonal()
    triangles = lower.tril(-1) + diagonal.abs().log().diag_embed() + upper.triu(1)
    dtype = torch.get_default_dtype()
    return permutation.argmax(-1), diagonal.sign().to(dtype), triangles.to(dtype)
