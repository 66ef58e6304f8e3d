# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Where torch's random numbers are, so that the same ones can be drawn again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pyro_dgm.nn.being_captured import being_captured, draws_so_far


class RandomState(NamedTuple):
    """The states of the generators that an operation on some device draws from: the CPU's, and the device's own.

    Attributes:
        device: The device.
        states: The states, which are on the CPU whatever the device is; none while a program is recorded.
        drawn: While a program is recorded, in which generators stand still: how often it drew so far.
    """

    device: torch.device
    states: tuple[Tensor, ...]
    drawn: int = 0

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Read the states. A GPU is not waited for."""
        if being_captured():
            return cls(device, (), draws_so_far())
        own = () if device.type == "cpu" else (torch.get_device_module(device).get_rng_state(device),)
        return cls(device, (torch.get_rng_state(), *own))

    def is_at(self, other: "RandomState") -> bool:
        """Whether no number was drawn between the two."""
        return self.drawn == other.drawn and all(map(torch.equal, self.states, other.states))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Let everything inside draw what was drawn from here on, and nothing outside notice.

        Raises:
            RuntimeError: While a program is recorded: a recording has no generator that could be put back.
        """
        if not self.states:
            raise RuntimeError("A recorded program cannot draw the same random numbers a second time.")
        now = RandomState.now(self.device)
        self._put()
        try:
            yield
        finally:
            now._put()

    def _put(self) -> None:
        torch.set_rng_state(self.states[0])
        if self.states[1:]:
            torch.get_device_module(self.device).set_rng_state(self.states[1], self.device)
