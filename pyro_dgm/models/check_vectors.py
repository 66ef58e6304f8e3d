# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Refuse data that are no vectors of real numbers of a model's dimension, and say how to make them so."""

import torch
from torch import Tensor


def check_vectors(owner: object, x: Tensor, *, dim: int, dtype: torch.dtype) -> None:
    """Refuse x if it is not floating point, of another precision than the model, or not of shape ``(B, dim)``.

    Args:
        owner: The model; its class is named in messages.
        x: What it was given.
        dim: Number D of elements of a datum.
        dtype: That of the model's parameters.

    Raises:
        ValueError: If x is not floating point, has another dtype or another shape.

    >>> check_vectors("a string", torch.zeros(5, 2), dim=2, dtype=torch.float32)
    """
    who = type(owner).__name__
    if not x.is_floating_point():
        raise ValueError(f"{who} got x of dtype {x.dtype}: it is a density of real numbers. Use x.to({dtype}).")
    if x.dim() != 2 or x.shape[1] != dim:
        raise ValueError(
            f"{who}(dim={dim}) got x of shape {tuple(x.shape)}: it needs (B, {dim}). Pictures go in as x.flatten(1), a "
            f"single datum as x.unsqueeze(0)."
        )
    if x.dtype != dtype:
        raise ValueError(f"{who} has parameters of dtype {dtype} and got x of dtype {x.dtype}: use x.to({dtype}).")
