# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The posterior of a normal latent vector under linear observations, without ever squaring a condition number."""

import torch
from torch import Tensor


def posterior_factor(loading: Tensor) -> tuple[Tensor, Tensor]:
    r"""Infer z ~ N(0, I) from x ~ N(A z, I).

    .. math:: p(z \mid x) = N(E x,\; C C^\top), \qquad C C^\top = (I + A^\top A)^{-1}, \quad E = C C^\top A^\top

    The product A^T A is not made: a QR decomposition of A above I has its Cholesky factor, which therefore is as good
    in single precision as a product would be in double. It exists for every A.

    Args:
        loading: A, shape ``(D, L)``.

    Returns:
        The Cholesky factor C of the covariance, lower triangular with a positive diagonal, ``(L, L)``; and the encoder
        E, ``(L, D)``.

    Source: Golub & Van Loan (2013), Matrix Computations, section 5.3 (least squares by QR) and 6.1 (ridge regression).

    >>> factor, encoder = posterior_factor(torch.tensor([[1.0], [1.0]]))
    >>> factor.square(), encoder
    (tensor([[0.3333]]), tensor([[0.3333, 0.3333]]))
    """
    dim, latent = loading.shape
    eye = torch.eye(latent, dtype=loading.dtype, device=loading.device)
    rotated, upper = torch.linalg.qr(torch.cat([loading, eye]).flip(-1))  # of the columns in reverse: R becomes lower
    lower = upper.flip(-1, -2)  # (L, L), lower^T lower = I + A^T A
    sign = lower.diagonal().sign()
    lower, rotated = sign.unsqueeze(-1) * lower, rotated.flip(-1) * sign
    factor = torch.linalg.solve_triangular(lower, eye, upper=False)
    return factor, factor @ rotated[:dim].mT
