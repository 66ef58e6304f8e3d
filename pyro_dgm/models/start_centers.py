# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Data that lie far apart, from which a mixture starts: k-means++."""

import torch
from torch import Tensor


def start_centers(x: Tensor, components: int, *, seed: int) -> Tensor:
    """Choose data at random, each with a chance that grows with its squared distance to those chosen before.

    Args:
        x: Vectors, shape ``(N, D)``.
        components: How many to choose, K. If there are fewer data, all are chosen, some of them again.
        seed: Seed of the choice.

    Returns:
        Shape ``(K, D)``.

    Raises:
        ValueError: If there are no data, or NaN or infinite ones among them.

    Source: Arthur & Vassilvitskii (SODA 2007), section 2.2.

    >>> start_centers(torch.tensor([[0.0], [0.1], [9.0]]), 2, seed=0).round().sort(0).values.flatten()
    tensor([0., 9.])
    """
    from sklearn.cluster import kmeans_plusplus

    if len(x) == 0 or not x.isfinite().all():
        raise ValueError(
            f"A start from data got {len(x)} data, {int((~x.isfinite()).any(1).sum())} of them with NaN or infinite "
            f"values: at least one datum is needed, and all of them finite."
        )
    known = min(components, len(x))
    chosen = torch.from_numpy(kmeans_plusplus(x.detach().double().cpu().numpy(), known, random_state=seed)[1])
    return x[chosen[torch.arange(components) % known].to(x.device)]
