# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Warm-up raises the weight of the KL terms from about 0 to its full value, so that the latents are used early on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from torch import Tensor

Shape = Literal["linear", "cosine", "cyclic"]


class Warmup:
    r"""The share of its full weight that the KL has, or of its full value that another number has, as it rises.

    .. math:: \text{linear: } \min(t / T, 1), \qquad \text{cosine: } \tfrac{1}{2} (1 - \cos(\pi \min(t / T, 1)))

    with t the epoch, counted from 1, or the step, counted from 1. A cyclic one rises linearly M times: in each of the M
    equal parts of T from 0 to 1 within the first R of the part, and stays at 1 for the rest.

    Args:
        epochs: T in epochs.
        steps: T in steps. Neither means no warm-up: the share is always 1.
        shape: How it rises; after T the share is 1 whatever the shape.
        cycles: M, for a cyclic one.
        rise: R, for a cyclic one, above 0 and up to 1. One cycle with R = 1 is the linear shape.
        option: What its options are called in messages.

    Raises:
        ValueError: If epochs and steps are both given, or a number is out of its range.

    Source: Sønderby et al. (2016), arXiv:1602.02282, section 2.3; by epochs from 1 as in Sylvester flows (van den Berg
    et al. 2018, arXiv:1803.05649, section 6); cyclic Fu et al. (NAACL 2019), arXiv:1903.10145, eq. 6 and 7, with their
    M = 4 and R = 0.5, but counted from 1 here, so that each cycle ends at 1.
    """

    def __init__(
        self,
        *,
        epochs: int | float | None = None,
        steps: int | None = None,
        shape: Shape = "linear",
        cycles: int = 4,
        rise: int | float = 0.5,
        option: str = "warmup",
    ) -> None:
        if epochs is not None and steps is not None:
            raise ValueError(f"{option}_epochs={epochs} and {option}_steps={steps} are both given: give one of them.")
        if min(epochs or 0, steps or 0) < 0:
            raise ValueError(f"{option}_epochs={epochs}, {option}_steps={steps}: a warm-up cannot be negative.")
        if shape not in get_args(Shape):
            raise ValueError(f"{option}_shape={shape!r}: it must be one of {', '.join(map(repr, get_args(Shape)))}.")
        if cycles < 1 or not 0 < rise <= 1:
            raise ValueError(
                f"{option}_cycles={cycles}, {option}_rise={rise}: there must be at least one cycle, and the share of "
                f"it in which the weight rises must be above 0 and at most 1."
            )
        self.epochs, self.steps = epochs or 0, steps or 0
        self.shape, self.cycles, self.rise, self.option = shape, cycles, rise, option

    @property
    def by_steps(self) -> bool:
        """Whether the share changes within an epoch."""
        return self.steps > 0

    def __bool__(self) -> bool:
        return self.epochs > 0 or self.steps > 0

    def share(self, *, epoch: int, step: int) -> float:
        """Give the KL's share for a step.

        >>> [Warmup(epochs=4).share(epoch=epoch, step=1) for epoch in (1, 2, 4, 5)]
        [0.25, 0.5, 1.0, 1.0]
        >>> cyclic = Warmup(steps=8, shape="cyclic", cycles=2)
        >>> [cyclic.share(epoch=1, step=step) for step in range(1, 10)]
        [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0]

        Args:
            epoch: The epoch that the step is in, counted from 1.
            step: The step, counted from 1.
        """
        if self.finished(epoch=epoch, step=step):
            return 1.0
        now, end = (step, self.steps) if self.steps else (epoch, self.epochs)
        if self.shape == "cosine":
            return (1 - math.cos(math.pi * now / end)) / 2
        if self.shape == "cyclic":
            cycles = now * self.cycles / end  # in this order, so that the end of a cycle is a whole number
            return min((cycles - math.ceil(cycles) + 1) / self.rise, 1.0)
        return now / end

    def finished(self, *, epoch: int, step: int) -> bool:
        """Whether the share is 1 from now on; a cyclic one falls again after each cycle but the last.

        Args:
            epoch: The epoch that the step is in, counted from 1.
            step: The step, counted from 1.
        """
        return step >= self.steps if self.steps else epoch >= self.epochs

    def require_shorter_than(self, *, epochs: int, steps: int | None = None) -> None:
        """Refuse a warm-up that training would end within, leaving the KL with less than its full weight.

        Args:
            epochs: Length of training in epochs.
            steps: Length of training in steps, once it is known.

        Raises:
            ValueError: If the warm-up is longer.
        """
        if self.epochs > epochs:
            raise ValueError(
                f"{self.option}_epochs={self.epochs} is longer than training (epochs={epochs}): {self._never()}, and "
                f"what is trained would not be what was asked for. Train longer, or give at most {epochs} epochs."
            )
        if steps is not None and self.steps > steps:
            raise ValueError(
                f"{self.option}_steps={self.steps} is longer than training ({epochs} epochs are {steps} steps): "
                f"{self._never()}. Train longer, or give at most {steps} steps."
            )

    def _never(self) -> str:
        return f"the {'KL' if self.option == 'warmup' else self.option} would never get its full weight"


@contextmanager
def full_weight(beta: Tensor | None) -> Iterator[None]:
    """Set a KL weight to 1 for a while, as every evaluation needs it.

    Args:
        beta: The weight, a 0-dim tensor that is changed in place, or None if there is none.
    """
    if beta is None:
        yield
        return
    kept = beta.clone()
    beta.fill_(1.0)
    try:
        yield
    finally:
        beta.copy_(kept)
