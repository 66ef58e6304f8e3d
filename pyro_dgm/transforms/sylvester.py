# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of the three Sylvester flows, which bend space along several orthogonal directions at a time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.solve_triangular_tanh import solve_triangular_tanh
from pyro_dgm.transforms.start_small import start_small

Frame = tuple[Tensor, ...]
"""Orthonormal columns Q, as the tensors that a flow makes them of; none for Q = I."""


class Sylvester(FlowTransform):
    r"""Add to x a network of one hidden layer, whose Jacobian is triangular in an orthonormal frame Q.

    .. math::
        y = x + Q R \tanh(\tilde R Q^T x + b), \qquad
        \log|\det J| = \sum_i \log\bigl(1 + r_i \tilde r_i (1 - t_i^2)\bigr), \quad t = \tanh(\tilde R Q^T x + b)

    Q has M orthonormal columns; R and :math:`\tilde R` are upper triangular, with diagonals r and :math:`\tilde r`
    that are tanh of parameters. So :math:`r_i \tilde r_i > -1`, and the map is invertible by construction; where tanh
    rounds to 1 it counts as 4 eps less. As published, the two strict triangles are those of one matrix. Its diagonal,
    which is left over there, holds the parameters of r. The determinant is computed from sums of positive numbers.

    K such maps in a row have stacked parameters. The frames and triangles of all are made at once, and multiplied into
    :math:`Q R` and :math:`\tilde R Q^T` if all data share them; the log-determinants are taken once at the end.

    The inverse, map by map, is :math:`x = y - Q R \tanh p`, where :math:`p + \tilde R R \tanh p = \tilde R Q^T y + b`
    by :func:`solve_triangular_tanh`.

    To write one with another Q than I: give the initial values of its parameters, and implement :meth:`frames`,
    :meth:`into_frame` and :meth:`out_of_frame`.

    Args:
        dim: Size D of a datum.
        width: Number M of columns of Q.
        upper: For each of the K maps whether R and :math:`\tilde R` are upper triangular, or lower.
        initial: Initial values of the parameters of Q by name, each of shape ``(K, ...)``.
        context_dim: Size of a context; None for parameters of its own.
        context_net: Makes the network that gives all parameters.

    Source: van den Berg, Hasenclever, Tomczak & Welling (UAI 2018), arXiv:1803.05649, section 3.
    """

    strict: Tensor

    def __init__(
        self,
        dim: int,
        *,
        width: int,
        upper: Sequence[bool],
        initial: Mapping[str, Tensor],
        context_dim: int | None,
        context_net: ContextNet,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        self.upper = tuple(upper)
        ones = torch.ones(width, width)
        strict = torch.stack([ones.triu(1) if is_upper else ones.tril(-1) for is_upper in upper])
        self.register_buffer("strict", strict, persistent=False)
        bound = 0.5 / width**0.5  # R has then a norm below 1 for all M, and the Jacobian is near the identity
        triangles = {
            "triangles": torch.empty_like(strict).uniform_(-bound, bound),
            "diagonal": torch.empty_like(strict[:, 0]).uniform_(-bound, bound),
            "shift": torch.zeros_like(strict[:, 0]),
        }
        self.values = FlowParameters({**triangles, **initial}, context_dim, context_net)
        if context_dim is not None:
            start_small(self.values.net)

    def frames(self, *values: Tensor) -> Frame:
        """Make the frames of all maps from their parameters, each tensor of shape ``(*batch, K, ., .)``."""
        return ()

    def into_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q^T x for every row x: ``(*batch, N, D)`` to ``(*batch, N, M)``."""
        return rows

    def out_of_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q t for every row t: ``(*batch, N, M)`` to ``(*batch, N, D)``."""
        return rows

    def bind(self, context: Tensor | None) -> Parameters:
        r"""Give for all maps b, :math:`r \tilde r`, 1 more than it, :math:`\tilde R`, :math:`R^T`, and the frames."""
        triangles, diagonal, shift, *values = self.values(context)
        first, second = triangles.diagonal(dim1=-2, dim2=-1), diagonal
        below = 1 - 4 * torch.finfo(shift.dtype).eps
        r, r_tilde = below * first.tanh(), below * second.tanh()
        up, down = (2 * first).sigmoid() * (2 * second).sigmoid(), (-2 * first).sigmoid() * (-2 * second).sigmoid()
        gap = (1 - below**2) + 2 * below**2 * (up + down)
        inner = torch.addcmul(torch.diag_embed(r_tilde), triangles.mT, self.strict)
        outer = torch.addcmul(torch.diag_embed(r), triangles, self.strict).mT
        frames = self.frames(*values)
        if shift.dim() == 2 and frames:  # all data share them
            inner, outer, frames = self.out_of_frame(inner, frames), self.out_of_frame(outer, frames), ()
        return shift, r * r_tilde, gap, inner, outer, frames

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        shift, product, gap, inner, outer, frames = parameters
        rows, hidden = _rows(x, shift), []
        for b, into, out, *frame in _maps((shift,), (inner, outer, *frames)):
            hidden.append(self._preactivation(rows, b, into, tuple(frame)).tanh())
            rows = self._add(rows, hidden[-1], out, tuple(frame))
        return _unrow(rows, shift, x.shape), _unrow(_logdet(hidden, product, gap), shift, x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        shift, product, gap, inner, outer, frames = parameters
        maps = _maps((shift, product, gap), (inner @ outer.mT, inner, outer, *frames))
        rows, hidden = _rows(y, shift), []
        for upper, (b, c, above, mixing, into, out, *frame) in zip(self.upper[::-1], maps[::-1], strict=True):
            a = self._preactivation(rows, b, into, tuple(frame))
            hidden.append(solve_triangular_tanh(mixing, a, c, above, upper=upper).tanh())
            rows = self._add(rows, -hidden[-1], out, tuple(frame))
        return _unrow(rows, shift, y.shape), -_unrow(_logdet(hidden[::-1], product, gap), shift, y.shape[:-1])

    def _preactivation(self, rows: Tensor, b: Tensor, inner: Tensor, frame: Frame) -> Tensor:
        """Give R~ Q^T x + b."""
        rows = self.into_frame(rows, frame) if frame else rows
        return torch.addmm(b, rows, inner.mT) if rows.dim() == 2 else b.unsqueeze(-2) + rows @ inner.mT

    def _add(self, rows: Tensor, hidden: Tensor, outer: Tensor, frame: Frame) -> Tensor:
        """Give x + Q R h."""
        if rows.dim() == 2 and not frame:
            return torch.addmm(rows, hidden, outer)
        bend = hidden @ outer
        return rows + (self.out_of_frame(bend, frame) if frame else bend)


def _maps(vectors: Sequence[Tensor], matrices: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Give the parameters of one map after the other."""
    return list(zip(*(v.unbind(-2) for v in vectors), *(m.unbind(-3) for m in matrices), strict=True))


def _logdet(hidden: list[Tensor], product: Tensor, gap: Tensor) -> Tensor:
    """Give the sum of log(1 + c (1 - t^2)) over all maps, as log(gap - c t^2)."""
    t = torch.stack(hidden, -2)
    return torch.addcmul(gap.unsqueeze(-3), t * t, -product.unsqueeze(-3)).log().sum((-2, -1))


def _rows(x: Tensor, shift: Tensor) -> Tensor:
    """Lay x of shape ``(*more, *batch, D)`` out as ``(*batch, N, D)``: all that share one set of parameters."""
    batch = shift.dim() - 2
    if batch == 0:
        return x.reshape(-1, x.shape[-1])
    more = x.dim() - 1 - batch
    return (x.flatten(0, more - 1) if more else x.unsqueeze(0)).movedim(0, -2)


def _unrow(rows: Tensor, shift: Tensor, shape: Sequence[int]) -> Tensor:
    """Lay out as it was before."""
    return rows.movedim(shift.dim() - 2, 0).reshape(shape)
