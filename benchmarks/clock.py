# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long a block of calls takes, with all that they start on a device."""

import time
from collections.abc import Callable

import torch


def timed(action: Callable[[], object], repeats: int, device: str) -> float:
    """Time a block, in milliseconds for each repeat."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats
