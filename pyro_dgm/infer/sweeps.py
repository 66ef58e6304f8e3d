# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What closed-form methods share: sums over batches, a look for NaN, and the loop until nothing is gained."""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from pyro_dgm.infer.em_history import EMHistory

Statistics = dict[str, Tensor]


@runtime_checkable
class Sweeping(Protocol):
    """A step that sums over batches and knows its objective: `EM`, `CoordinateAscent`."""

    history: EMHistory

    def __call__(self, batch: Tensor) -> Statistics:
        """Take a batch in."""

    def evaluate(self) -> float:
        """Note the objective of the parameters that the sums belong to; raise if it is not finite."""


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


def sweep_until(
    step: Sweeping, x: Tensor, *, update: Callable[[], None], sweeps: int, tolerance: int | float
) -> EMHistory:
    """Sweep over all data until nothing is gained.

    It ends with a look at the data, so that the last objective is that of the parameters as they are.

    Args:
        step: What sweeps.
        x: All data, shape ``(N, *event)``.
        update: Its update of the parameters.
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
        update()
    return step.history
