# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Keep flows out of automatic mixed precision, in which log-determinants lose their digits."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Method = Callable[[Any, Tensor], Any]


def full_precision(method: Method) -> Method:
    """Let a method of one tensor run without autocast, and raise a half-precision tensor to float32 where it was on.

    A product in bfloat16 has 8 bits: the log-determinants of a few maps are then off by half a nat, and solvers of
    triangular systems have no such kernel at all. Networks outside the flow stay as they are.
    """

    @wraps(method)
    def precise(self: Any, x: Tensor) -> Any:  # noqa: ANN401 -- whatever the method gives
        device = x.device.type
        if device == "meta" or not torch.is_autocast_enabled(device):
            return method(self, x)
        with torch.autocast(device, enabled=False):
            return method(self, x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)

    return precise
