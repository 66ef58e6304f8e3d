# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a run is compiled, if nobody says so: where it is long enough to win back what compiling takes."""

import shutil
from typing import Literal

import torch

Choice = bool | Literal["auto"]
ENOUGH = 10_000
"""Steps from which on it pays: a recording takes 10 to 30 seconds on two cores, and saves some milliseconds a step."""


def compiles(choice: Choice, *, steps: int, device: torch.device, processes: int) -> bool:
    """Decide whether to compile.

    The answer depends on the configuration and the machine alone, so that a run that is continued goes on as it began.

    Args:
        choice: What the configuration says. ``"auto"`` compiles on a CPU, where a C++ compiler is there, one process
            trains, and steps are many. (On a GPU it has to be asked for.)
        steps: How many steps the run has.
        device: Where it trains.
        processes: How many train together.

    >>> compiles("auto", steps=500, device=torch.device("cpu"), processes=1)
    False
    >>> compiles(True, steps=500, device=torch.device("cpu"), processes=1)
    True
    """
    if choice != "auto":
        return choice
    return device.type == "cpu" and processes == 1 and steps >= ENOUGH and _compiler() is not None


def _compiler() -> str | None:
    return next((path for name in ("g++", "clang++") if (path := shutil.which(name))), None)
