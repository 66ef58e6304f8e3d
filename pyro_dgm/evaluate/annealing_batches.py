# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed chains run batch by batch and, if they are many, group by group, in bounded memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_dgm.evaluate.annealing import Schedule, StepSizes, inverse_temperatures, pilot
from pyro_dgm.evaluate.footprint import footprint
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.latent_path import LatentPath
from pyro_dgm.evaluate.random_subset import random_subset

# As many chains tell the mean acceptance of a transition within a tenth.
_PILOT_CHAINS = 16


@dataclass(frozen=True)
class Settings:
    """How chains are annealed: the options that `ais` and `sandwich` share.

    Raises:
        ValueError: If a number is out of range.
    """

    num_steps: int
    num_chains: int
    num_leapfrog: int
    schedule: Schedule
    step_size: float | int | None
    seed: int
    batch_size: int
    max_elements: int

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range."""
        for name in ("num_steps", "num_chains", "num_leapfrog", "batch_size", "max_elements"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} was given: at least 1 is needed.")
        if self.step_size is not None and not (self.step_size > 0 and math.isfinite(self.step_size)):
            raise ValueError(
                f"step_size={self.step_size} was given: it must be positive; None finds one by a pilot run."
            )

    def __str__(self) -> str:
        """Print as in ``500 steps, 16 chains``."""
        steps, chains = self.num_steps, self.num_chains
        return f"{steps} step{'s' * (steps != 1)}, {chains} chain{'s' * (chains != 1)}"


@dataclass(frozen=True, eq=False)
class Part:
    """One group of chains of one batch, ready to run.

    Attributes:
        path: Scores the batch's latent variables.
        betas: Inverse temperatures.
        steps: Step sizes of the batch.
        index: Which of all data these are, on the CPU.
    """

    path: LatentPath
    betas: list[float]
    steps: StepSizes
    index: Tensor


def in_batches(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    run: Callable[[Part], dict[str, Tensor]],
    settings: Settings,
    *,
    num_data: int | None,
) -> dict[str, Tensor]:
    """Run chains for all data.

    Args:
        model: A Pyro program with a data plate.
        guide: Where the path starts; ``None`` is the prior.
        x: Data of shape ``(N, *event)``.
        run: Runs the chains of one part. What it names ``log_...`` has shape ``(C, B)``, one row for each chain; all
            else has shape ``(T - 1, B)`` and is a mean over chains.
        settings: The options.
        num_data: Size of the random subset; ``None`` is all.

    Returns:
        What ``run`` returned, for all chains and data, on the CPU.
    """
    index = random_subset(len(x), num_data, seed=settings.seed)
    programs = [model] if guide is None else [model, guide]
    betas = inverse_temperatures(settings.num_steps, settings.schedule)
    batches = []
    with frozen(*programs, seed=settings.seed, device=x.device):
        rows = max(1, settings.max_elements // footprint(lambda x: _scored(model, guide, x), x))
        group = min(settings.num_chains, rows)
        batch_size = min(settings.batch_size, rows // group)
        for part in index.split(batch_size):
            batch = x[part.to(x.device)]
            steps = _steps(model, guide, batch, settings, min(group, _PILOT_CHAINS))
            groups = []
            for done in range(0, settings.num_chains, group):
                path = LatentPath(model, guide, batch, chains=min(group, settings.num_chains - done))
                with pyro.validation_enabled(is_validate=False):  # it would wait for the device in every distribution
                    found = run(Part(path, betas, steps, part))
                groups.append((path.chains, {name: value.cpu() for name, value in found.items()}))
            batches.append({name: _joined(name, groups) for name in groups[0][1]})
    return {name: torch.cat([batch[name] for batch in batches], 1) for name in batches[0]}


def _steps(
    model: Callable[..., Any], guide: Callable[..., Any] | None, x: Tensor, settings: Settings, chains: int
) -> StepSizes:
    """Find step sizes by a pilot run, or take the one that was given."""
    path = LatentPath(model, guide, x, chains=chains)
    if settings.num_steps == 1:  # no transitions
        return StepSizes(path.draw().new_zeros(1, len(x)))
    if settings.step_size is not None:
        return StepSizes(path.draw().new_full((1, len(x)), math.log(settings.step_size)))
    with pyro.validation_enabled(is_validate=False):
        length = min(settings.num_steps, 50 + settings.num_steps // 10)
        return pilot(path, length, settings.schedule, leapfrog=settings.num_leapfrog)


def _scored(model: Callable[..., Any], guide: Callable[..., Any] | None, x: Tensor) -> None:
    path = LatentPath(model, guide, x, chains=1)
    path(path.draw())


def _joined(name: str, groups: list[tuple[int, dict[str, Tensor]]]) -> Tensor:
    """Put the groups of a batch together: chains in a row, means over chains averaged."""
    if name.startswith("log_"):
        return torch.cat([found[name] for _, found in groups])
    return sum(chains * found[name] for chains, found in groups) / sum(chains for chains, _ in groups)  # type: ignore[return-value]
