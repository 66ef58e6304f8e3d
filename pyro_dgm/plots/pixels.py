# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Image tensors, grey or in colour, become arrays between 0 and 1 that matplotlib can show."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]


def pixels(
    who: str, x: Tensor, *, levels: int, shape: tuple[int, ...] | None = None, leading: tuple[str, ...] = ("N",)
) -> Array:
    """Turn levels into brightness.

    Args:
        who: The caller, for messages.
        x: Integers or means in levels, 0 ... levels - 1, of shape ``(*leading, H, W)``, ``(*leading, 1, H, W)`` or
            ``(*leading, 3, H, W)``; with ``shape`` each datum may be flat.
        levels: Number of values a pixel can take.
        shape: Shape of one datum, ``(H, W)`` or ``(C, H, W)``.
        leading: Names of the dimensions in front.

    Returns:
        Shape ``(*leading, H, W, 3)``, from 0 (black) to 1 (white).

    Raises:
        ValueError: If x is empty, has the wrong shape, NaN, or values that are no levels.
    """
    names, rank, given = ", ".join(leading), len(leading), tuple(x.shape)
    if levels < 2:
        raise ValueError(f"{who} got levels={levels}: a pixel has at least 2.")
    if shape is not None and x.dim() > rank:
        flat = x.flatten(rank)
        if flat.shape[-1] != int(np.prod(shape)):
            raise ValueError(f"{who} got x of shape {given}, which does not fit images of shape={shape}.")
        x = flat.unflatten(-1, shape)
    if x.dim() == rank + 2:
        x = x.unsqueeze(-3)
    if x.dim() != rank + 3 or x.shape[-3] not in (1, 3) or 0 in x.shape:
        raise ValueError(
            f"{who} got images of shape {given}: it needs ({names}, H, W), or ({names}, C, H, W) with 1 or 3 "
            f"channels, and at least one image. Flat data need shape=(H, W)."
        )
    array = x.detach().double().cpu().movedim(-3, -1).numpy() / (levels - 1)
    if np.isnan(array).any():
        raise ValueError(f"{who} got images with NaN: check the model that made them.")
    if array.min() < -1e-6 or array.max() > 1 + 1e-6:
        raise ValueError(
            f"{who} got values from {float(x.min()):g} to {float(x.max()):g}: with levels={levels} they must lie in "
            f"0 ... {levels - 1}."
        )
    return np.broadcast_to(array, (*array.shape[:-1], 3)).clip(0, 1)
