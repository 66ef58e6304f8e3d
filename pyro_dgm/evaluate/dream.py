# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Draw new data from a model."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.picture import picture


def dream(
    model: Callable[..., Any],
    size: int,
    *,
    site: str = "x",
    mean: bool = True,
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    r"""Draw latent variables from the prior and show their data.

    Args:
        model: A Pyro program that dreams when called as ``model(size=B)``.
        size: How many to draw.
        site: Name of the model's data site.
        mean: The mean of p(x | z), in levels, which is what papers print, or else a sample of it.
        seed: Seed of the draws.
        batch_size: Largest number at once.

    Returns:
        Data of shape ``(size, *event)``, on the model's device.

    Raises:
        ValueError: If ``size < 1``, the model has no such site, or its distribution has no mean.
    """
    if size < 1:
        raise ValueError(f"dream got size={size}: at least 1 is needed.")
    parts = []
    with frozen(model, seed=seed):
        for done in range(0, size, batch_size):
            trace = poutine.trace(model).get_trace(size=min(batch_size, size - done))
            parts.append(picture(trace, site, mean=mean))
    return torch.cat(parts)
