# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What training asks of a step and of a feed of batches; anything that has it can be trained."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Step(Protocol):
    """Makes one update from one batch: a gradient step, a two-player step, an EM sweep.

    It may have more, which is used if it is there: ``beta``, the KL's weight, and ``capacity``, its target, 0-dim
    tensors to be changed in place; ``lr``, a float to show; ``epoch_end()``, called after each epoch; ``state_dict()``
    and ``load_state_dict(state)`` with whatever besides the weights it needs to continue (numbers, strings, None,
    tensors, and lists, tuples and dicts of such).
    """

    @property
    def module(self) -> nn.Module:
        """The module whose weights are saved and averaged."""

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Update, and give 0-dim tensors: ``loss`` in nats per datum, and others of the same names at every step."""


@runtime_checkable
class Feed(Protocol):
    """Iterating over it gives an epoch of batches, or what is left of one.

    If it has ``state_dict()`` and ``load_state_dict(state)``, a state that was taken after a batch must make the next
    iteration begin with the batch after it.
    """

    def __len__(self) -> int:
        """Give the number of batches of a whole epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over an epoch, or what is left of one."""
