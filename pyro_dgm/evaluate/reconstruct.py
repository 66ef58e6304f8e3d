# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Encode data and decode them again: what survives is what the latent variables know."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.picture import picture
from pyro_dgm.evaluate.random_subset import random_subset


def reconstruct(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    site: str = "x",
    mean: bool = True,
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    r"""Decode one posterior sample of each datum: :math:`\mathbb{E}[x \mid z]` for :math:`z \sim q(z \mid x)`.

    Args:
        model: A Pyro program that dreams when called as ``model(size=B)``.
        guide: Its guide, called as ``guide(x)``.
        x: Data of shape ``(N, *event)``.
        site: Name of the model's data site.
        mean: The mean of p(x | z), in levels, or else a sample of it.
        seed: Seed of the posterior samples.
        batch_size: Largest number of data at once.

    Returns:
        Reconstructions, shape ``(N, *event)``, on the device of x.

    Raises:
        ValueError: If x is empty, the model has no such site, or its distribution has no mean.
    """
    parts = []
    with frozen(model, guide, seed=seed, device=x.device):
        for part in random_subset(len(x), None).split(batch_size):
            encoded = poutine.trace(guide).get_trace(x[part.to(x.device)])
            decoded = poutine.trace(poutine.replay(model, trace=encoded)).get_trace(size=len(part))
            parts.append(picture(decoded, site, mean=mean))
    return torch.cat(parts)
