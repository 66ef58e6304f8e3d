# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The matrix of orthonormal columns that is nearest to a given one, by an iteration of matrix products only."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dgm.nn.apply_function import apply_function

SMALLEST = 1e-4
"""Singular values above this fraction of the Frobenius norm are raised to 1."""

CACHED = 2**17
"""How many numbers a CPU iterates on at a time: more do not fit into its cache."""


def orthogonalize(matrix: Float[Tensor, "*batch dim width"]) -> Float[Tensor, "*batch dim width"]:
    r"""Replace every singular value by 1: the polar factor of the matrix, of orthonormal columns.

    .. math:: Q \leftarrow \alpha Q, \qquad Q \leftarrow Q \left(I + \tfrac12 (I - Q^T Q)\right)

    from :math:`Q / \|Q\|_F`. As published, :math:`\alpha = 1`, and up to a hundred steps stop at
    :math:`\|Q^T Q - I\|_F \le 10^{-6}`. Here each step is first scaled so that it raises the smallest singular value
    most, and their number is that after which all are 1 to machine precision: 14 in float32, 15 in float64. The limit
    is the same, and nothing waits for a number from the device. The gradient is that of the limit.

    A matrix whose smallest singular value is below 1e-4 of its Frobenius norm, zero at worst, has no polar factor that
    could be told from rounding errors. It gives the first columns of the identity, and gets no gradient.

    Args:
        matrix: Shape ``(*batch, D, M)``, M at most D.

    Returns:
        Matrices with :math:`Q^T Q = I` to machine precision, shape ``(*batch, D, M)``.

    Source: van den Berg, Hasenclever, Tomczak & Welling (UAI 2018), arXiv:1803.05649, section 3, after Bjorck &
    Bowie (SIAM J. Numer. Anal. 8(2), 1971).

    Example:
        >>> q = orthogonalize(torch.randn(5, 7, 3))
        >>> torch.allclose(q.mT @ q, torch.eye(3), atol=1e-5)
        True
    """
    norm = torch.linalg.matrix_norm(matrix.detach(), keepdim=True)  # the result does not depend on it
    start = (matrix / norm.clamp(min=torch.finfo(matrix.dtype).tiny)).reshape(-1, *matrix.shape[-2:])
    if start.device.type != "cpu" or start.numel() <= CACHED:
        return apply_function(_Polar, start)[0].reshape(matrix.shape)
    parts = start.split(max(CACHED // start[0].numel(), 1))
    return torch.cat([apply_function(_Polar, part)[0] for part in parts]).reshape(matrix.shape)


class _Polar(torch.autograd.Function):
    """The polar factor Q of matrices A = Q S of singular values up to 1, and whether it was found."""

    generate_vmap_rule = True

    @staticmethod
    def forward(start: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.finfo(start.dtype).eps
        identity = torch.eye(*start.shape[-2:], dtype=start.dtype, device=start.device)
        q, gram = start, identity
        for keep, take in _steps(eps):
            gram = torch.bmm(q.mT, q)
            q = torch.baddbmm(q, q, gram, beta=keep, alpha=-take)
        error = (gram - identity[: gram.shape[-1]]).abs().amax((-2, -1), keepdim=True)  # the last step squared it
        found = error < 2 * eps**0.5
        return torch.where(found, q, identity), found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        """Give (I - Q Q^T) G S^-1 + Q X, where S X + X S = Q^T G - G^T Q."""
        start, q, found = ctx.saved_tensors
        grad = torch.where(found, grad, 0)
        along = torch.bmm(q.mT, grad)
        s = torch.bmm(q.mT, start)
        s = torch.where(found, (s + s.mT) / 2, torch.eye(s.shape[-1], dtype=s.dtype, device=s.device))
        one_by_one = s.is_cpu and not torch.is_grad_enabled()  # second derivatives fail where singular values are equal
        inverse, x = (_by_eigenvalues if one_by_one else _by_steps)(s, along - along.mT)
        across = torch.bmm(torch.baddbmm(grad, q, along, alpha=-1), inverse)
        return torch.baddbmm(across, q, x)


def _by_eigenvalues(s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Give S^-1 and the X of S X + X S = C; fast on a CPU."""
    values, v = torch.linalg.eigh(s)
    x = torch.bmm(torch.bmm(v.mT, c), v) / (values.unsqueeze(-1) + values.unsqueeze(-2))
    return torch.bmm(v / values.unsqueeze(-2), v.mT), torch.bmm(torch.bmm(v, x), v.mT)


def _by_steps(s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Give the same for S of eigenvalues up to 1 and antisymmetric C by matrix products only.

    The steps that orthogonalise bring S to I, and so the product of their factors to S^-1. The sign function of the
    matrix of blocks [[S, C], [0, -S]], which is what they compute, has 2 X where C was.
    """
    inverse = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device).expand_as(s)
    for keep, take in (*_steps(torch.finfo(s.dtype).eps), (1.5, 0.5)):  # C is one step behind S
        s2, sc = torch.bmm(s, s), torch.bmm(s, c)
        c = torch.baddbmm(c, c, s2, beta=keep, alpha=-take)
        c = torch.baddbmm(torch.baddbmm(c, s, sc, alpha=-take), sc, s, alpha=take)
        inverse = torch.baddbmm(inverse, inverse, s2, beta=keep, alpha=-take)
        s = torch.baddbmm(s, s, s2, beta=keep, alpha=-take)
    return inverse, c / 2


def _steps(eps: float) -> list[tuple[float, float]]:
    """Give the two factors of every step, Q <- keep Q - take Q Q^T Q.

    For singular values between l and 1 the best scale is (3 / (1 + l + l^2))^(1/2) (Chen & Chow, Argonne preprint
    ANL/MCS-P5059-0114, 2014). It would bring those at 1 down to where those at l get, and lose their digits: hence 1.6.
    """
    steps, lower = [], SMALLEST
    while 1 - lower > eps:
        scale = min(math.sqrt(3 / (1 + lower + lower**2)), 1.6)
        steps.append((1.5 * scale, 0.5 * scale**3))
        lower = min(scale * value * (3 - (scale * value) ** 2) / 2 for value in (lower, 1.0))
    return steps
