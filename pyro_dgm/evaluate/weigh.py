# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Weigh data against a model chunk by chunk: every estimate of a bound is a reduction of these chunks."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.footprint import footprint
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.infer.log_weights import LogWeights, log_weights

# Elements of the largest tensor of a chunk: 16 MiB in float32, which is 5000 particles for dense networks on an image
# of 28 x 28. Smaller chunks ask programs to run more often, larger ones leave the cache.
MAX_ELEMENTS = 2**22

# Data whose guide runs at once.
BATCH_SIZE = 100


def weigh(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    reduce: Callable[[Iterator[LogWeights]], dict[str, Tensor]],
    *,
    num_samples: int,
    num_data: int | None,
    seed: int,
    batch_size: int,
    max_elements: int,
) -> dict[str, Tensor]:
    """Reduce the log-weights of every datum, in bounded memory.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``.
        reduce: Turns the chunks of one batch, whose terms have shape ``(k, B)`` with the k adding up to
            ``num_samples``, into tensors of shape ``(B, ...)``.
        num_samples: Particles for each datum, K; one is enough where nothing is latent.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the particles.
        batch_size: Largest number of data at once.
        max_elements: Largest number of elements of a chunk's largest tensor.

    Returns:
        What ``reduce`` returned for each batch, concatenated: shapes ``(num_data, ...)``, float64, on the CPU.

    Raises:
        ValueError: If a number is below 1, there are fewer data than asked for, or the weights are not one per datum.
    """
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size), ("max_elements", max_elements)):
        if value < 1:
            raise ValueError(f"{name}={value} was given: at least 1 is needed.")
    index = random_subset(len(x), num_data, seed=seed)
    with frozen(model, guide, seed=seed, device=x.device):
        rows = max(1, max_elements // footprint(lambda x: _checked(log_weights(model, guide, x), 1, x), x))
        single = log_weights(model, guide, x[:1])
    nesting = single.nesting
    if not single.guide_terms:  # nothing is latent: every particle weighs the same
        num_samples = 1
    chunk = min(num_samples, rows)  # particles before data: a network that encodes x runs once for all of a chunk's
    batch_size = min(batch_size, rows // chunk)

    def chunks(batch: Tensor) -> Iterator[LogWeights]:
        for done in range(0, num_samples, chunk):
            particles = min(chunk, num_samples - done)
            weights = log_weights(model, guide, batch, particles=particles, max_plate_nesting=nesting)
            yield _checked(weights, particles, batch)

    with frozen(model, guide, seed=seed, device=x.device):
        parts = [reduce(chunks(x[part.to(x.device)])) for part in index.split(batch_size)]
        return {name: torch.cat([part[name].double().cpu() for part in parts]) for name in parts[0]}


def _checked(weights: LogWeights, particles: int, x: Tensor) -> LogWeights:
    """Refuse weights that are not one per particle and datum."""
    shape = tuple(weights.log_w.shape)
    if weights.constants:
        raise ValueError(
            f"The model observes {sorted(weights.constants)} outside its data plate, so these terms belong to no "
            f"datum. Observe them inside pyro.plate('data', len(x)), or leave them out of what is evaluated."
        )
    if shape != (particles, len(x)):
        raise ValueError(
            f"The log-weights have shape {shape} for {particles} particles and x of shape {tuple(x.shape)}: one weight "
            f"per particle and datum, {(particles, len(x))}, is needed. Every site of model and guide belongs inside "
            f"pyro.plate('data', len(x))."
        )
    return weights
