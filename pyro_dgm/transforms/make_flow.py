# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Call the factory of a flow, and say what is wrong with what it makes."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.distributions.conditional import ConditionalTransform
from torch.distributions import Transform

from pyro_dgm.transforms.base import FlowTransform


def check_factory(owner: object, factory: object, *, images: bool = False) -> None:
    """Refuse a flow where what makes one is needed.

    Args:
        owner: Who wants it; its class is named in messages.
        factory: What a user gave.
        images: Whether the flow is one of images.

    Raises:
        ValueError: If it is a flow already, or makes nothing.
    """
    if isinstance(factory, Transform) or not callable(factory):
        size, name = ("shape", "Glow") if images else ("dimension", "Planar")
        raise ValueError(
            f"{type(owner).__name__} got the flow {factory}: it needs what makes one from the {size}, e.g. "
            f"flow={name} or flow=partial({name}, depth=4)."
        )


def make_flow(
    owner: object, factory: Callable[..., Any], dim: int, *, context: int | None = None, stock: bool = False
) -> Any:  # noqa: ANN401 -- a flow of this package, or a stock transform
    """Make a flow for whom it belongs to.

    Args:
        owner: Who wants it; its class is named in messages.
        factory: A class, or `functools.partial` of one, called with ``dim``.
        dim: Dimension of the flow.
        context: Given to the factory as ``context_dim`` if it has such an option; None for a flow without a context.
        stock: Whether transforms of torch and Pyro will do.

    Raises:
        ValueError: If the factory is a flow already, or the flow is none, of another dimension or another context.
    """
    who = type(owner).__name__
    check_factory(owner, factory)
    flow = factory(dim, context_dim=context) if context and _takes_context(factory) else factory(dim)
    kinds = (*([Transform] if stock else []), *([ConditionalTransform] if stock and context else []), FlowTransform)
    if not isinstance(flow, kinds):
        raise ValueError(f"{who} got a flow= that makes {type(flow).__name__}: it must make a flow, e.g. flow=Planar.")
    if {getattr(flow, "shape", (dim,)), getattr(flow, "out_shape", (dim,))} != {(dim,)}:
        raise ValueError(f"{who} got a flow= that makes {flow}: its dimension must be {dim}.")
    if getattr(flow, "context_dim", None) not in (None, context):
        needed = f"{context}, which it gets by itself" if context else "left out: there is no context"
        raise ValueError(f"{who} got a flow= that makes {flow}: its context_dim must be {needed}.")
    return flow


def _takes_context(factory: Callable[..., Any]) -> bool:
    """Whether a factory has an option ``context_dim``.

    A partial of a function of ``**options``, as a configuration file gives, has those options that it sets.
    """
    parameters = inspect.signature(factory).parameters
    if "context_dim" in parameters:
        return True
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return open_ended and (not isinstance(factory, partial) or "context_dim" in factory.keywords)
