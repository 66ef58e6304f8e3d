# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules of Torch by their names, with options but without an optimiser yet."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler


def schedule(name: str, **options: Any) -> Callable[[Optimizer], LRScheduler]:
    """Make a factory for a schedule of `torch.optim.lr_scheduler`; time is counted in epochs.

    >>> import torch
    >>> from torch import nn, optim
    >>> make = schedule("MultiStepLR", milestones=[10, 20], gamma=0.5)
    >>> make(optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)).get_last_lr()
    [0.1]

    Args:
        name: The class, e.g. ``"CosineAnnealingLR"``.
        **options: Its arguments but for the optimiser, e.g. ``T_max=100``.

    Returns:
        A function of the optimiser.

    Raises:
        ValueError: If Torch has no such schedule, or it needs the loss at each step, as ReduceLROnPlateau does.
    """
    known = [n for n, c in vars(lr_scheduler).items() if isinstance(c, type) and issubclass(c, LRScheduler)]
    names = sorted(n for n in known if not n.startswith("_") and n not in ("LRScheduler", "ReduceLROnPlateau"))
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise ValueError(f"No learning-rate schedule {name!r} goes by epochs; did you mean {', '.join(near)}?")
    return partial(getattr(lr_scheduler, name), **options)
