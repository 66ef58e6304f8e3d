# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Refuse data that are no integers of a model's shape, and say how to make them so."""

import torch
from torch import Tensor


def check_integers(owner: object, x: Tensor, *, shape: tuple[int, ...], levels: int) -> None:
    """Refuse x if it is not integer, or not of shape ``(B, *shape)``.

    Args:
        owner: The model; its class is named in messages.
        x: What it was given.
        shape: Shape of one datum.
        levels: Number of levels; the integers are 0 ... levels - 1.

    Raises:
        ValueError: If x is not integer or has another shape.
    """
    who = type(owner).__name__
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(
            f"{who} got x of dtype {x.dtype}: it needs integers 0 ... {levels - 1}. Levels kept as floats want "
            f"x.long(); pictures in [0, 1] want (x * {levels - 1}).round().long()."
        )
    if x.dim() != len(shape) + 1 or tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"{who}(shape={shape}) got x of shape {tuple(x.shape)}: it needs (B, {', '.join(map(str, shape))}). "
            f"A single datum goes in as x.unsqueeze(0)."
        )
