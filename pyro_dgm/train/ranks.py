# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the processes of one training run tell each other; a run of one process needs none of it and pays nothing."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def size() -> int:
    """Give the number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Give this process's number, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def gather(value: T) -> list[T]:
    """Give every process the values of all, by rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


def on_first(action: Callable[[], T]) -> T:
    """Do something in the first process only, and give its result, or its error, to all.

    Args:
        action: What to do, e.g. write a file.

    Raises:
        Exception: What the action raised, in every process, so that none waits for one that has failed.
    """
    if size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def mean(rows: Tensor) -> Tensor:
    """Average a tensor over the processes; NaN in one is NaN in all."""
    if size() == 1:
        return rows
    return torch.stack(gather(rows)).mean(0)
