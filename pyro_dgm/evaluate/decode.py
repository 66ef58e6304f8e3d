# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Show the data that belong to given latent codes."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.picture import picture
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.infer.particles import sample_sites


def decode(
    model: Callable[..., Any],
    z: Tensor,
    *,
    latent: str = "z",
    site: str = "x",
    mean: bool = True,
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    r"""Condition a model on latent codes: :math:`\mathbb{E}[x \mid z]`.

    Args:
        model: A Pyro program that dreams when called as ``model(size=B)``.
        z: Codes of shape ``(N, *latent)``, on the model's device.
        latent: Name of the latent site that they are values of; other latent variables are drawn from the model.
        site: Name of the model's data site.
        mean: The mean of p(x | z), in levels, or else a sample of it.
        seed: Seed of what is drawn.
        batch_size: Largest number of codes at once.

    Returns:
        Data of shape ``(N, *event)``.

    Raises:
        ValueError: If z is empty, the model has no such site, or its distribution has no mean.
    """
    parts = []
    with frozen(model, seed=seed, device=z.device):
        for part in random_subset(len(z), None).split(batch_size):
            codes = {latent: z[part.to(z.device)]}
            trace = poutine.trace(poutine.condition(model, data=codes)).get_trace(size=len(part))
            if latent not in trace.nodes:
                sites = sorted(sample_sites(trace))
                raise ValueError(f"decode got codes for site {latent!r} and the model has {sites}: give one of these.")
            parts.append(picture(trace, site, mean=mean))
    return torch.cat(parts)
