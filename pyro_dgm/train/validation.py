# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Validation: the mean of an objective over held-out data, with the same random numbers every time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from pyro_dgm.train.warmup import full_weight


class Validation:
    """Call it for an objective's mean over a data set, at beta = 1, without a control of the KL, and without gradients.

    It draws from a random stream of its own, which starts from ``seed`` at each call: it neither disturbs training nor
    does its noise change from epoch to epoch.

    Args:
        objective: Maps a batch to scalars that are means over the batch, e.g. `pyro_dgm.infer.Objective`; the KL weight
            ``objective.bound.beta``, if it has one, is set to 1 meanwhile, and ``objective.bound.kl`` to None, so that
            weights are compared by what they will be judged by.
        x: The data, shape ``(N, *event)``, on the device of the objective's weights.
        batch_size: How many data to evaluate at once; the result does not depend on it but for its random numbers.
        seed: Of the random stream.

    Raises:
        ValueError: If there are no data, or ``batch_size`` is not positive.
    """

    def __init__(
        self, objective: Callable[[Tensor], dict[str, Tensor]], x: Tensor, *, batch_size: int = 500, seed: int = 0
    ) -> None:
        if len(x) == 0 or batch_size < 1:
            raise ValueError(f"Validation got {len(x)} data and batch_size={batch_size}: both must be at least 1.")
        self.objective, self.x, self.batch_size, self.seed = objective, x, batch_size, seed

    def __call__(self) -> dict[str, Tensor]:
        """Evaluate the objective.

        Returns:
            Its scalars, averaged with the weight of each batch's size, 0-dim float64 tensors on the data's device.
        """
        bound = getattr(self.objective, "bound", None)
        beta = getattr(bound, "beta", None)
        devices = [self.x.device] if self.x.is_cuda else []
        totals: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices), torch.no_grad(), full_weight(beta), _uncontrolled(bound):
            torch.manual_seed(self.seed)
            with pyro.settings.context(module_local_params=True):
                for batch in self.x.split(self.batch_size):
                    for name, value in self.objective(batch).items():
                        totals[name] = totals.get(name, 0.0) + value.double() * len(batch)
        return {name: total / len(self.x) for name, total in totals.items()}


@contextmanager
def _uncontrolled(bound: object) -> Iterator[None]:
    """Take the control of the KL terms out of a bound for a while."""
    kl = getattr(bound, "kl", None)
    if kl is None:
        yield
        return
    bound.kl = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        bound.kl = kl  # type: ignore[attr-defined]
