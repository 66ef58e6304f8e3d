# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A step with a watch: how long a method itself took, without validation, logging and saving."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dgm.train.step import Step


class TimedStep:
    """Do what another step does, and add up its seconds.

    On an accelerator it waits for the step to finish, so use it to measure, and not to go fast.

    Args:
        step: Any `Step`.

    Attributes:
        seconds: Spent in steps and at the ends of epochs so far, continued runs included.
    """

    def __init__(self, step: Step) -> None:
        self.step, self.seconds = step, 0.0

    @property
    def module(self) -> nn.Module:
        """The step's module."""
        return self.step.module

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Make the step."""
        with self._watched():
            return self.step(batch)

    def epoch_end(self) -> None:
        """End the step's epoch, if it has such an end."""
        if hasattr(self.step, "epoch_end"):
            with self._watched():
                self.step.epoch_end()

    def state_dict(self) -> dict[str, Any]:
        """Collect the seconds and the step's own state."""
        state = self.step.state_dict() if hasattr(self.step, "state_dict") else None
        return {"seconds": self.seconds, "step": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self.seconds = state["seconds"]
        if state["step"] is not None:
            self.step.load_state_dict(state["step"])  # type: ignore[attr-defined]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - begin
