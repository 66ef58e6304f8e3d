# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Warm-up raises the weight of the KL terms from about 0 to its full value, so that the latents are used early on."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class Warmup:
    r"""The share of its full weight that the KL has, rising linearly.

    .. math:: \min(t / T, 1)

    with t the epoch, counted from 1, or the step, counted from 1.

    Args:
        epochs: T in epochs.
        steps: T in steps. Neither means no warm-up: the share is always 1.

    Raises:
        ValueError: If both are given, or one is negative.

    Source: Sønderby et al. (2016), arXiv:1602.02282, section 2.3; by epochs from 1 as in Sylvester flows (van den Berg
    et al. 2018, arXiv:1803.05649, section 6).
    """

    def __init__(self, *, epochs: int | float | None = None, steps: int | None = None) -> None:
        if epochs is not None and steps is not None:
            raise ValueError(f"warmup_epochs={epochs} and warmup_steps={steps} are both given: give one of them.")
        if min(epochs or 0, steps or 0) < 0:
            raise ValueError(f"warmup_epochs={epochs}, warmup_steps={steps}: a warm-up cannot be negative.")
        self.epochs, self.steps = epochs or 0, steps or 0

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

        Args:
            epoch: The epoch that the step is in, counted from 1.
            step: The step, counted from 1.
        """
        if self.steps:
            return min(step / self.steps, 1.0)
        return min(epoch / self.epochs, 1.0) if self.epochs else 1.0

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
                f"warmup_epochs={self.epochs} is longer than training (epochs={epochs}): the KL would never get its "
                f"full weight, and what is trained would not be the bound. Train longer, or warm up for at most "
                f"{epochs} epochs."
            )
        if steps is not None and self.steps > steps:
            raise ValueError(
                f"warmup_steps={self.steps} is longer than training ({epochs} epochs are {steps} steps): the KL would "
                f"never get its full weight. Train longer, or warm up for at most {steps} steps."
            )


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
