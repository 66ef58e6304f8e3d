# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A bound against its number of particles shows how far an inference network is from the posterior."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.log_likelihood import log_likelihood
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS


def bound_curve(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    particles: Sequence[int] = (1, 2, 5, 10, 50, 100, 500),
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> list[Estimate]:
    r"""Estimate the importance-weighted bound for several numbers of particles, on the same data.

    .. math:: -\mathcal{L}_K(x) = -\mathbb{E}\Big[\log \frac{1}{K} \sum_{k=1}^K w_k\Big], \qquad
              -\mathcal{L}_1 \ge -\mathcal{L}_2 \ge \dots \ge -\log p(x)

    The order holds in expectation. The particles of each K are drawn anew, so that the points are independent given
    the data.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``.
        particles: The numbers of particles K. The default runs from the negative ELBO to where most curves are flat.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the particles.
        batch_size: Largest number of data at once.
        max_elements: Memory bound, as in `log_likelihood`.

    Returns:
        One `Estimate` in nats for each K, in the order given; lower is better.

    Raises:
        ValueError: If ``particles`` is empty, or as `log_likelihood` does.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, theorem 1.
    """
    if not particles:
        raise ValueError("bound_curve got no numbers of particles: give at least one, e.g. particles=(1, 10, 100).")
    x = x[random_subset(len(x), num_data, seed=seed).to(x.device)]
    curve = []
    for offset, count in enumerate(particles):
        estimate = log_likelihood(
            model,
            guide,
            x,
            num_samples=count,
            seed=seed + 1 + offset,
            batch_size=batch_size,
            max_elements=max_elements,
        )
        curve.append(replace(estimate, method=f"IWAE, {count} particle{'s' * (count != 1)}"))
    return curve
