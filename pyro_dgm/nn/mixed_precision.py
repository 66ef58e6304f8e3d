# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Let networks inside formulas of probability take part in automatic mixed precision."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.nn.full_precision import OUTSIDE
from pyro_dgm.nn.raised import raised

Method = Callable[[Any, Tensor], Tensor]


def mixed_precision(method: Method) -> Method:
    """Let a method that asks a network run as it would outside of `full_precision`, and raise what it gives.

    It is for networks whose output is computed once and used in both directions of a flow, so that the flow is one and
    the same whatever digits the network has. A network that the inverse asks anew is none of these: what it sees comes
    back up to rounding only, and in bfloat16 two inputs a rounding apart may give outputs that differ in the third
    digit. Through eight couplings, the inverse would be exact to 1e-2 instead of 1e-6.
    """

    @wraps(method)
    def mixed(self: Any, x: Tensor) -> Tensor:  # noqa: ANN401 -- a module
        dtype = OUTSIDE.dtype
        if dtype is None:
            return method(self, x)
        with torch.autocast(x.device.type, dtype=dtype):
            return raised(method(self, x))

    return mixed
