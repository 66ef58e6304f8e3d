# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Call the factory of a dequantiser, and say what is wrong with what it makes."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pyro_dgm.transforms import FlowTransform


def make_dequantizer(owner: object, factory: Callable[..., Any], shape: tuple[int, ...], levels: int) -> nn.Module:
    """Make the module that turns integers x into q(v | x).

    Args:
        owner: Who wants it; its class is named in messages.
        factory: A class, or `functools.partial` of one, called with ``shape`` and ``levels``.
        shape: Shape of one datum.
        levels: Number of levels.

    Raises:
        ValueError: If the factory is a module already, or makes none, or one for other data.
    """
    who = type(owner).__name__
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ValueError(
            f"{who} got dequantizer={factory!r}: it needs what makes one from shape and levels, e.g. "
            f"dequantizer=UniformDequantizer or dequantizer=partial(VariationalDequantizer, depth=2)."
        )
    module = factory(shape, levels)
    if not isinstance(module, nn.Module) or isinstance(module, FlowTransform):
        raise ValueError(
            f"{who} got a dequantizer= that makes {type(module).__name__}: it must make a module that gives q(v | x), "
            f"e.g. dequantizer=VariationalDequantizer, whose own flow= is a flow."
        )
    of = getattr(module, "shape", shape), getattr(module, "levels", levels)
    if of != (shape, levels):
        raise ValueError(
            f"{who} got a dequantizer= that makes {type(module).__name__} for shape={of[0]} and levels={of[1]}: the "
            f"data have shape={shape} and levels={levels}, with which dequantizer= is called."
        )
    return module
