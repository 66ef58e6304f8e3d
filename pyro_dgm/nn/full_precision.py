# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Keep formulas of probability out of automatic mixed precision, in which they lose their digits."""

from collections.abc import Callable
from functools import wraps
from itertools import chain
from threading import local
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from pyro_dgm.nn.raised import raised

Method = TypeVar("Method", bound=Callable[..., Any])


class _Outside(local):
    """What each thread knows of the autocast that the innermost :func:`full_precision` has turned off there."""

    dtype: torch.dtype | None = None


OUTSIDE = _Outside()


def full_precision(method: Method) -> Method:
    """Let a method run without autocast, and raise half-precision arguments to float32 where it was on.

    A product in bfloat16 has 8 bits: the log-determinants of a few maps are then off by half a nat, squared distances
    that are differences of products by more, and solvers of triangular systems have no such kernel at all. Networks
    outside stay as they are; one inside may ask for `mixed_precision`. Where autocast is off, nothing happens.
    """

    @wraps(method)
    def precise(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- whatever the method takes and gives
        device = _device(self, args, kwargs)
        if device == "meta" or not torch.is_autocast_enabled(device):
            return method(self, *args, **kwargs)
        before, OUTSIDE.dtype = OUTSIDE.dtype, torch.get_autocast_dtype(device)
        try:
            with torch.autocast(device, enabled=False):
                return method(self, *map(_raised, args), **{name: _raised(arg) for name, arg in kwargs.items()})
        finally:
            OUTSIDE.dtype = before

    return cast(Method, precise)


def _device(owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:  # noqa: ANN401 -- as above
    """Say where the first tensor is, or else the module's own: a model dreams without data."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Tensor):
            return arg.device.type
    return next(chain(owner.parameters(), owner.buffers())).device.type


def _raised(arg: Any) -> Any:  # noqa: ANN401 -- as above
    return raised(arg) if isinstance(arg, Tensor) else arg
