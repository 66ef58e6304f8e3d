# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast training goes and guesses how long it will take."""

import time


class Clock:
    """Count images and seconds.

    Args:
        seconds: How long the run has taken before, if it is resumed.
    """

    def __init__(self, seconds: int | float = 0) -> None:
        self._start = time.monotonic()
        self._before = seconds
        self._steps = self._images = 0
        self._laps: dict[str, tuple[float, int, float]] = {}

    @property
    def seconds(self) -> float:
        """Training time so far, earlier sessions included."""
        return self._before + time.monotonic() - self._start

    def count(self, images: int) -> None:
        """Note that a step has been done with so many images."""
        self._steps += 1
        self._images += images

    def images_per_second(self, lap: str) -> float:
        """Give the speed since the same asker last asked, or the last known one if nothing was done since.

        Args:
            lap: Who asks.
        """
        now = time.monotonic()
        then, images, rate = self._laps.get(lap, (self._start, 0, 0.0))
        if self._images > images and now > then:
            rate = (self._images - images) / (now - then)
            self._laps[lap] = (now, self._images, rate)
        return rate

    def seconds_left(self, steps: int) -> float | None:
        """Guess how long so many more steps take, validation and saving included; None before the first."""
        return (time.monotonic() - self._start) / self._steps * steps if self._steps else None
