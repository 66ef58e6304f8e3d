# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A solver of triangular systems of equations with a tanh in them, which the inverses of Sylvester flows need."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dgm.nn.apply_function import apply_function
from pyro_dgm.transforms.solve import ConvergenceError

SWEEPS = 4
"""Number of sweeps between two questions to the device whether all systems are solved; most need 8 or 12."""

FEWEST = 100  # sweeps before giving up, and ten more for each equation


def solve_triangular_tanh(
    matrix: Float[Tensor, "*batch width width"],
    a: Float[Tensor, "*rows width"],
    diagonal: Float[Tensor, "*batch width"],
    gap: Float[Tensor, "*batch width"],
    *,
    upper: bool = True,
) -> Float[Tensor, "*rows width"]:
    r"""Solve :math:`p + U \tanh p = a` for p, where U is triangular with a diagonal c between -1 and 1.

    Back-substitution would be M scalar equations one after the other. Here each sweep makes one Newton step in all M
    at once, :math:`p \leftarrow p - (p + U \tanh p - a) / (1 + c\,(1 - \tanh^2 p))`. Newton's method for
    :math:`z + c \tanh z = a` converges from anywhere for such c; so the last unknown does, then the one before it, and
    so on, whatever U is. In practice most converge together, in about a dozen sweeps for M = 64. The sweeps end when
    the residual of every equation is below 8 eps times the sum of the sizes of its terms, or is not a number because
    the input was not.

    Args:
        matrix: U, shape ``(*batch, M, M)``, of which the triangle is used.
        a: Right sides as rows, shape ``(*batch, N, M)``.
        diagonal: c, the diagonal of U, shape ``(*batch, M)``.
        gap: 1 + c, positive also where c rounds to -1, shape ``(*batch, M)``.
        upper: Whether U is upper triangular, or lower.

    Returns:
        p, of the shape of a, with (first-order) gradients to U and a by the implicit function theorem:
        :math:`dp = (I + U\,\mathrm{diag}(1 - \tanh^2 p))^{-1} (da - dU \tanh p)`.

    Raises:
        ConvergenceError: If a system is not solved after 100 + 10 M sweeps.

    Example:
        >>> u, a = torch.randn(3, 3).triu(1), torch.randn(5, 3)
        >>> p = solve_triangular_tanh(u, a, torch.zeros(3), torch.ones(3))
        >>> torch.allclose(p + p.tanh() @ u.mT, a, atol=1e-5)
        True
    """
    matrix = matrix.triu() if upper else matrix.tril()
    root = apply_function(
        _Root, matrix.detach(), a.detach(), diagonal.detach().unsqueeze(-2), gap.detach().unsqueeze(-2)
    )
    t = root.tanh()
    residual = root - a + t @ matrix.mT
    if not (torch.is_grad_enabled() and residual.requires_grad):
        return root
    with torch.no_grad():
        square = t * t
        jacobian = matrix.unsqueeze(-3) * (1 - square).unsqueeze(-2)
        steepness = torch.addcmul(gap.unsqueeze(-2), square, -diagonal.unsqueeze(-2))
        jacobian = jacobian.diagonal_scatter(steepness, dim1=-2, dim2=-1)
    step = (residual - residual.detach()).unsqueeze(-1)
    return root - torch.linalg.solve_triangular(jacobian, step, upper=upper).squeeze(-1)


class _Root(torch.autograd.Function):
    """The solution without gradients, also where `torch.func.vmap` hides what the sweeps are to be stopped by."""

    @staticmethod
    def forward(matrix: Tensor, a: Tensor, c: Tensor, gap: Tensor) -> Tensor:
        return _solve(matrix, a, c, gap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return _Root.apply(*(x if d is None else x.movedim(d, 0) for x, d in zip(inputs, in_dims, strict=True))), 0


def _solve(matrix: Tensor, a: Tensor, c: Tensor, gap: Tensor) -> Tensor:
    limit = FEWEST + 10 * a.shape[-1]
    p = a
    for sweep in range(1, limit + 1):
        t = p.tanh()
        residual = p - a + t @ matrix.mT
        new = p - residual / torch.addcmul(gap, t * t, -c)
        if sweep < 4 * SWEEPS and sweep % SWEEPS:
            p = new
            continue
        failed = residual.abs() > 8 * torch.finfo(a.dtype).eps * (p.abs() + a.abs() + t.abs() @ matrix.abs().mT)
        if sweep % SWEEPS == 0 and not bool(failed.any()):
            return p
        # Where U is large, rounding errors of an unknown that never rests grow from equation to equation.
        p = torch.where(failed, new, p) if sweep >= 4 * SWEEPS else new
    unsolved = failed.any(-1)
    rows = [tuple(row) for row in unsolved.nonzero()[:3].tolist()]
    raise ConvergenceError(
        f"solve_triangular_tanh did not solve {int(unsolved.sum())} of {unsolved.numel()} systems in {limit} sweeps, "
        f"first {rows}: the residual is up to {float(residual[failed].abs().amax())}. Are the parameters of the flow "
        f"so large that its dtype cannot tell its values apart? Try float64."
    )
