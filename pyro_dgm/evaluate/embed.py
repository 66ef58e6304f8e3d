# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Where a guide puts each datum in latent space: the mean of its posterior."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.posterior_means import posterior_means
from pyro_dgm.evaluate.random_subset import random_subset


def embed(
    guide: Callable[..., Any],
    x: Tensor,
    *,
    site: str = "z",
    num_samples: int = 100,
    seed: int = 0,
    batch_size: int = 100,
) -> Tensor:
    r"""Encode data as posterior means, :math:`\mathbb{E}_{q(z \mid x)}[z]`.

    Args:
        guide: A guide with a data plate, called as ``guide(x)``.
        x: Data of shape ``(N, *event)``.
        site: Name of the latent variable.
        num_samples: Samples that estimate a mean without a closed form (a flow's).
        seed: Seed of those samples, and of the latent variables that ``site`` depends on.
        batch_size: Largest number of data at once.

    Returns:
        The means, shape ``(N, *latent)``, on the device of x.

    Raises:
        ValueError: If x is empty or the guide has no such site.
    """
    means = []
    with frozen(guide, seed=seed, device=x.device):
        for part in random_subset(len(x), None).split(batch_size):
            found = posterior_means(guide, x[part.to(x.device)], num_samples=num_samples)
            if site not in found:
                raise ValueError(f"embed was asked for {site!r} and the guide has {sorted(found)}: give one of these.")
            means.append(found[site])
    return torch.cat(means)
