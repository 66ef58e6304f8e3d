# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Check what a user says about a normal distribution beforehand, its location and scatter, and fill in the rest."""

import torch
from torch import Tensor


def normal_prior(owner: object, dim: int, loc: Tensor | None, scatter: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give the location, and the Cholesky factor of the scatter.

    Args:
        owner: The model; its class is named in messages.
        dim: Number D of elements of a datum.
        loc: Shape ``(D,)``; None is zero.
        scatter: A positive definite matrix of shape ``(D, D)``; None is the identity.

    Returns:
        The location, a copy, and the lower Cholesky factor.

    Raises:
        ValueError: If a shape is another, a number is not finite, or the scatter is not positive definite.

    >>> normal_prior("a string", 1, None, torch.tensor([[4.0]]))
    (tensor([0.]), tensor([[2.]]))
    """
    loc, scatter = torch.zeros(dim) if loc is None else loc, torch.eye(dim) if scatter is None else scatter
    who = type(owner).__name__
    if loc.shape != (dim,) or scatter.shape != (dim, dim):
        raise ValueError(
            f"{who} got a prior_loc of shape {tuple(loc.shape)} and a prior_scatter of shape {tuple(scatter.shape)}: "
            f"for dim={dim} they must be ({dim},) and ({dim}, {dim})."
        )
    tril, wrong = torch.linalg.cholesky_ex(scatter)
    if bool(wrong) or not bool(tril.isfinite().all()):
        raise ValueError(
            f"{who} got a prior_scatter that is not positive definite: it must be like a covariance matrix. Add to its "
            f"diagonal."
        )
    if not bool(loc.isfinite().all()):
        raise ValueError(f"{who} got a prior_loc that is not finite: give a point near the data.")
    return loc.clone(), tril
