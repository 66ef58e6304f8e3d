# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Tells a person how training goes: the numbers to show, and the interface of the two ways to show them."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import StringIO, TextIOWrapper
from types import TracebackType
from typing import Self, TextIO

TextFile = TextIO | StringIO | TextIOWrapper


@dataclass(frozen=True)
class Status:
    """How far training is.

    Attributes:
        epoch: The current epoch, counted from 1.
        epochs: How many there will be.
        step: How many steps are done.
        steps: How many there will be.
        beta: The weight of the KL terms, if there is one.
        loss: The loss in nats per datum, at this beta.
        nats: -ELBO in nats per datum, at beta = 1, if the step tells its terms.
        valid: The last validation loss in nats per datum, if there was one.
        images_per_second: The speed.
        seconds_left: Guess of the time to the end.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    beta: float | None = None
    loss: float | None = None
    nats: float | None = None
    valid: float | None = None
    images_per_second: float = 0.0
    seconds_left: float | None = None

    def losses(self) -> list[str]:
        """Word the losses that are known, one string each, and beta."""
        named = [("loss", self.loss, ".2f"), ("nats", self.nats, ".2f"), ("valid", self.valid, ".2f")]
        parts = [f"{name} {value:{form}}" for name, value, form in named if value is not None]
        if self.beta is not None:
            parts.append(f"beta {self.beta:.2f}")
        return parts

    def pace(self) -> list[str]:
        """Word the speed and the time left."""
        return [f"{self.images_per_second:,.0f} images/s", f"{clock_time(self.seconds_left)} left"]


class Reporter(ABC):
    """A context manager that shows a run's `Status`."""

    interval: float
    """Show at most once in so many seconds."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a sentence."""

    @abstractmethod
    def show(self, status: Status) -> None:
        """Show how far an epoch is."""

    @abstractmethod
    def epoch(self, status: Status) -> None:
        """Show what an epoch has ended with."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Silent(Reporter):
    """Shows nothing."""

    interval = float("inf")

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, status: Status) -> None:
        """Show nothing."""

    def epoch(self, status: Status) -> None:
        """Show nothing."""


def clock_time(seconds: float | None) -> str:
    """Write a duration.

    >>> clock_time(3725.2)
    '1:02:05'

    Args:
        seconds: Its length, or None if it is unknown.
    """
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def reporter(file: TextFile | None = None) -> Reporter:
    """Choose a progress bar for a terminal, and plain lines for anything else.

    Args:
        file: Where to write; standard error by default, so that a program's results stay apart.
    """
    from pyro_dgm.train.plain_reporter import PlainReporter
    from pyro_dgm.train.rich_reporter import RichReporter

    file = sys.stderr if file is None else file
    return RichReporter(file) if file.isatty() else PlainReporter(file)
