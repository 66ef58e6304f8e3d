# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What closed-form methods share: sums over batches, a look for NaN, and the loop until nothing is gained."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dgm.infer.em_history import EMHistory

Statistics = dict[str, Tensor]


class SweepStep(ABC):
    """A step of training that sums over the batches of a sweep and updates its model at the end.

    Args:
        model: The model, whose parameters are changed in place.
        online: Step sizes, or None: then the sums are those of a sweep.
        history: Where the objectives go.
    """

    def __init__(self, model: nn.Module, online: tuple[int | float, int | float] | None, history: EMHistory) -> None:
        self.module = model
        self.online = online
        self.history = history
        self.batches = 0
        self.statistics: Statistics | None = None

    @abstractmethod
    def __call__(self, batch: Tensor) -> Statistics:
        """Take a batch in."""

    @abstractmethod
    def evaluate(self) -> float:
        """Note the objective of the parameters that the sums belong to; raise if it is not finite."""

    @abstractmethod
    def update(self) -> None:
        """Update the parameters and forget the sums."""

    def epoch_end(self) -> None:
        """Finish the sweep: note the objective and update the parameters; online they have been updated."""
        if self.online is None:
            self.evaluate()
            self.update()

    def state_dict(self) -> dict[str, Any]:
        """Collect what besides the parameters is needed to continue, in the middle of a sweep too."""
        return {
            "statistics": None if self.statistics is None else dict(self.statistics),
            "batches": self.batches,
            "objectives": list(self.history.objectives),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        found = state["statistics"]
        self.statistics = None if found is None else {name: value.to(device) for name, value in found.items()}
        self.batches = state["batches"]
        self.history.objectives = list(state["objectives"])

    def _finite(self, value: Tensor) -> float:
        """Give a number to the host; one that is not finite spoils the sweep, whose sums are forgotten."""
        updates = len(self.history.objectives) if self.online is None else self.batches
        try:
            return require_finite(value, who=type(self).__name__, model=self.module, updates=updates)
        except ValueError:
            if self.online is None:
                self.statistics = None
            raise

    def _complete(self) -> Statistics:
        """Give the sums of a whole sweep."""
        if self.statistics is None:
            raise ValueError(
                f"{type(self).__name__} came to the end of a sweep without data: call it with at least one batch first."
            )
        return self.statistics


def precision_of(model: nn.Module) -> float:
    """Give the machine epsilon of a model's parameters, that of float64 if it has none."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float64)
    return torch.finfo(dtype).eps


def add(total: Statistics | None, found: Statistics) -> Statistics:
    """Add statistics to a total; None is the total of nothing.

    >>> from torch import tensor
    >>> add(add(None, {"count": tensor(2)}), {"count": tensor(3)})
    {'count': tensor(5)}
    """
    return found if total is None else {name: total[name] + found[name] for name in found}


def in_chunks(
    statistics: Callable[[Tensor], Statistics], batch: Tensor, *, chunk_size: int | None, who: str
) -> Statistics:
    """Sum the statistics of a batch, chunk by chunk.

    Args:
        statistics: Gives those of a chunk.
        batch: Data, shape ``(B, *event)``.
        chunk_size: How many data a chunk has; None for one chunk.
        who: Whose batch it is, for the message.

    Raises:
        ValueError: If the batch is empty.
    """
    if len(batch) == 0:
        raise ValueError(f"{who} got an empty batch: it needs at least one datum.")
    found: Statistics | None = None
    for chunk in batch.split(chunk_size or len(batch)):
        found = add(found, statistics(chunk))
    return found or {}


def require_finite(value: Tensor | float, *, who: str, model: object, updates: int) -> float:
    """Give a number to the host, after a look that it is finite: the device is waited for.

    Args:
        value: An objective, 0-dim.
        who: The method that reached it.
        model: Its model.
        updates: How many updates the model has had.

    Raises:
        ValueError: If it is NaN or infinite.

    >>> require_finite(-1.5, who="EM", model=None, updates=2)
    -1.5
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(
            f"{who} reached an objective of {number} after {updates} updates of {type(model).__name__}: are all data "
            f"finite, and of a moderate scale? Standardised data are. The parameters stay as they were before."
        )
    return number


def sweep_until(step: SweepStep, x: Tensor, *, sweeps: int, tolerance: int | float) -> EMHistory:
    """Sweep over all data until nothing is gained.

    It ends with a look at the data, so that the last objective is that of the parameters as they are.

    Args:
        step: What sweeps.
        x: All data, shape ``(N, *event)``.
        sweeps: At most so many updates.
        tolerance: Stop when a sweep moves the objective by no more than this, or downwards by rounding.

    Returns:
        The step's history.
    """
    for number in range(sweeps + 1):
        step(x)
        step.evaluate()
        step.history.converged = step.history.settled(tolerance)
        if step.history.converged or number == sweeps:
            break
        step.update()
    return step.history
