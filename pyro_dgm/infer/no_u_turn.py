# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Draws from a model's posterior by stock Pyro's No-U-Turn sampler, started where one likes, with its cost counted."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from torch import Tensor
from torch.distributions import biject_to

from pyro_dgm.infer.local_parameters import Program, local_parameters
from pyro_dgm.infer.particles import sample_sites


@dataclass(frozen=True, eq=False)
class Posterior:
    """A chain, warm-up included.

    Attributes:
        path: Values by site after each step, shape ``(warmup + S, *site)``.
        evaluations: How often the model had been run by then, forward and backward: passes through the data.
        seconds: The time that had passed by then.
        warmup: How many steps to leave out.
        divergences: How many trajectories after warm-up left the energy surface; draws are not to be trusted then.
    """

    path: dict[str, Tensor]
    evaluations: list[int]
    seconds: list[float]
    warmup: int
    divergences: int

    @property
    def draws(self) -> dict[str, Tensor]:
        """Draws from the posterior, shape ``(S, *site)``: the path without warm-up."""
        return {name: values[self.warmup :] for name, values in self.path.items()}


def nuts(
    model: Program,
    *args: Any,
    start: dict[str, Tensor] | None = None,
    samples: int = 100,
    warmup: int = 100,
    max_tree_depth: int = 6,
    target: int | float = 0.8,
    seed: int = 0,
) -> Posterior:
    """Run one chain of `pyro.infer.NUTS`, without touching the caller's random stream.

    Args:
        model: A Pyro program whose latent variables are continuous (or enumerable; Pyro sums those out).
        *args: What it is called with, the data among it.
        start: A value of each latent site to start from; drawn from the prior if not given.
        samples: S, draws that are kept.
        warmup: Steps before them, in which step size and mass matrix adapt.
        max_tree_depth: A trajectory has at most 2 to that power leapfrog steps, each a run of the model.
        target: Acceptance rate that the step size is adapted to.
        seed: Of the chain.

    Returns:
        The `Posterior`.

    Raises:
        ValueError: If a count is too small, or the start lacks a site of the model.

    Source: Hoffman & Gelman (JMLR 2014), arXiv:1111.4246.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    >>> nuts(model, torch.tensor(2.0), samples=50, warmup=20).draws["mean"].shape
    torch.Size([50])
    """
    if samples < 1 or warmup < 0 or max_tree_depth < 1:
        raise ValueError(
            f"nuts got samples={samples}, warmup={warmup}, max_tree_depth={max_tree_depth}: at least one draw, no "
            f"negative warm-up and a depth of at least 1 are needed."
        )
    watch = _Watch(model)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), local_parameters(model), torch.enable_grad():
        torch.manual_seed(seed)
        supports = _supports(model, args)
        if missing := sorted(supports.keys() - (supports if start is None else start).keys()):
            raise ValueError(f"nuts got a start without {missing}, which the model samples: give all of its sites.")
        first = {name: biject_to(supports[name]).inv(start[name].detach()) for name in supports} if start else None
        kernel = NUTS(watch.run, max_tree_depth=max_tree_depth, target_accept_prob=target)
        MCMC(kernel, samples, warmup, initial_params=first, hook_fn=watch.look, disable_progbar=True).run(*args)
    steps = {name: torch.stack([step[name] for step in watch.steps]) for name in supports}
    path = {name: biject_to(support)(steps[name]) for name, support in supports.items()}
    return Posterior(path, watch.evaluations, watch.seconds, warmup, watch.divergences)


class _Watch:
    """Count the runs of a model, and note where the chain is after each step."""

    def __init__(self, model: Program) -> None:
        self.model, self.runs, self.divergences, self.begin = model, 0, 0, time.perf_counter()
        self.steps: list[dict[str, Tensor]] = []
        self.evaluations: list[int] = []
        self.seconds: list[float] = []

    def run(self, *args: Any) -> Any:
        self.runs += 1
        return self.model(*args)

    def look(self, kernel: NUTS, values: dict[str, Tensor], stage: str, number: int) -> None:
        self.steps.append({name: value.detach().clone() for name, value in values.items()})
        self.evaluations.append(self.runs)
        self.seconds.append(time.perf_counter() - self.begin)
        if stage == "Sample":
            self.divergences = len(kernel.diagnostics()["divergences"])


def _supports(model: Program, args: tuple[Any, ...]) -> dict[str, Any]:
    """Find the continuous latent sites, and where their values may lie."""
    with torch.no_grad():
        sites = sample_sites(poutine.trace(model).get_trace(*args))
    latent = {name: site["fn"].support for name, site in sites.items() if not site["is_observed"]}
    return {name: support for name, support in latent.items() if not support.is_discrete}
