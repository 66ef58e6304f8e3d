# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a program is being recorded instead of run: then its tensors have shapes and types, and no numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Draws(TorchDispatchMode):
    """Counts the operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        self.count += torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


_recordings: list[_Draws] = []


def being_captured() -> bool:
    """Whether the caller runs inside :func:`capturing`, where nothing can be asked of the numbers in a tensor."""
    return bool(_recordings)


@contextmanager
def capturing() -> Iterator[None]:
    """Tell whoever asks :func:`being_captured` so; `pyro_dgm.infer.compiled` does."""
    with _Draws() as draws:
        _recordings.append(draws)
        try:
            yield
        finally:
            _recordings.pop()


def draws_so_far() -> int:
    """Count the random operations recorded so far, which stand for the states of generators that nobody moves."""
    return _recordings[-1].count
