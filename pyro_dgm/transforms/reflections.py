# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Products of Householder reflections, kept as two thin matrices and applied without ever being multiplied out."""

import torch
from jaxtyping import Float
from torch import Tensor

Reflections = tuple[Tensor, Tensor]
"""The vectors U and their companions W, both of shape ``(*batch, K, D)``: the product is Q = I - U^T W."""


def reflections(vectors: Float[Tensor, "*batch count dim"]) -> Reflections:
    r"""Give the product of K reflections in compact form.

    .. math::
        Q = H_1 H_2 \cdots H_K = I - U^T W, \qquad H_k = I - u_k u_k^T, \quad u_k = \sqrt 2\, v_k / \|v_k\|, \qquad
        (I + \mathrm{striu}(U U^T))\, W = U

    One small triangular system takes the place of K products. Q is orthogonal to machine precision for any vectors,
    parallel ones too. A zero vector reflects nothing, and the gradient that it gets is finite.

    Args:
        vectors: The vectors v, each orthogonal to the plane of its reflection, shape ``(*batch, K, D)``.

    Returns:
        U and W, which :func:`reflect`, :func:`reflect_back` and :func:`reflection_matrix` take.

    Source: Joffrain, Low, Quintana-Orti, van de Geijn & Van Zee (ACM TOMS 32(2), 2006), the UT transform.

    Example:
        >>> turned = reflect(torch.tensor([1.0, 2.0]), reflections(torch.tensor([[3.0, 0.0], [0.0, 0.1]])))
        >>> turned.round(decimals=6)
        tensor([-1., -2.])
    """
    largest = vectors.detach().abs().amax(-1, keepdim=True)  # undivided, squares over- or underflow
    scaled = vectors / torch.where(largest > 0, largest, 1)
    norm2 = scaled.square().sum(-1, keepdim=True)
    u = scaled * (2 / torch.where(norm2 > 0, norm2, 1)).sqrt()
    return u, torch.linalg.solve_triangular(u @ u.mT, u, upper=True, unitriangular=True)


def reflect(x: Float[Tensor, "*rows dim"], compact: Reflections) -> Float[Tensor, "*rows dim"]:
    """Give Q x for every row of x, shape ``(N, D)``, or ``(*batch, N, D)`` for U and W of shape ``(*batch, K, D)``."""
    u, w = compact
    return _minus(x, x @ w.mT, u)


def reflect_back(x: Float[Tensor, "*rows dim"], compact: Reflections) -> Float[Tensor, "*rows dim"]:
    """Give Q^T x, the inverse of Q, for every row of x; shapes as for :func:`reflect`."""
    u, w = compact
    return _minus(x, x @ u.mT, w)


def reflection_matrix(compact: Reflections) -> Float[Tensor, "*batch dim dim"]:
    """Multiply Q out, shape ``(*batch, D, D)``."""
    u, w = compact
    return torch.eye(u.shape[-1], dtype=u.dtype, device=u.device) - u.mT @ w


def _minus(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Give x - a b, in one operation where there is one."""
    if x.dim() == b.dim() == 3 and len(x) == len(b):
        return torch.baddbmm(x, a, b, alpha=-1)
    return torch.addmm(x, a, b, alpha=-1) if x.dim() == 2 else x - a @ b
