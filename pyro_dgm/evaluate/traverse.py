# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Walk along one latent coordinate at a time and watch the picture change."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.decode import decode


def traverse(
    model: Callable[..., Any],
    z: Tensor,
    *,
    dims: Sequence[int] | None = None,
    values: Sequence[float | int] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    latent: str = "z",
    site: str = "x",
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    r"""Decode z with one coordinate set to each value in turn.

    Args:
        model: A Pyro program that dreams when called as ``model(size=B)``.
        z: Where the walks start: one code, shape ``(L,)``, e.g. zeros or one row of `embed`.
        dims: Coordinates to walk along; ``None`` is all.
        values: Values that a coordinate takes. The default spans three standard deviations of a standard normal prior.
        latent: Name of the latent site.
        site: Name of the model's data site.
        seed: Seed of what is drawn.
        batch_size: Largest number of codes at once.

    Returns:
        Pictures in levels, shape ``(len(dims), len(values), *event)``, as `pyro_dgm.plots.traversal` takes them.

    Raises:
        ValueError: If z is not one code, a coordinate is out of range, or there is nothing to walk along.
    """
    if z.dim() != 1:
        raise ValueError(f"traverse got z of shape {tuple(z.shape)}: one code of shape (L,) is needed, e.g. z[0].")
    dims = range(len(z)) if dims is None else dims
    if not dims or not values or not all(0 <= dim < len(z) for dim in dims):
        raise ValueError(
            f"traverse got dims={list(dims)} and values={list(values)} for a code of {len(z)} coordinates: give at "
            f"least one of each, with every dim from 0 to {len(z) - 1}."
        )
    codes = z.repeat(len(dims), len(values), 1)  # (dims, values, L)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    flat = decode(model, codes.flatten(0, 1), latent=latent, site=site, seed=seed, batch_size=batch_size)
    return flat.unflatten(0, (len(dims), len(values)))
