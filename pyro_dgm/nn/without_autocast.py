# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Turn automatic mixed precision off for a while, on the device of a tensor."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Turn autocast off; a gradient that is wanted within a forward pass needs that, too.

    Backward passes of float32 products are rounded to bfloat16 if autocast is on while they run; those of what it had
    rounded are in bfloat16 anyhow. Where autocast is off, nothing happens.

    >>> x = torch.ones(2)
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), without_autocast(x):
    ...     print((x @ x).dtype)
    torch.float32
    """
    device = x.device.type
    on = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()
