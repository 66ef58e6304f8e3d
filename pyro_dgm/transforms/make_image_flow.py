# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Call the factory of a flow of images, and say what is wrong with what it makes."""

from collections.abc import Callable
from typing import Any

from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.make_flow import check_factory

Shape = tuple[int, ...]


def make_image_flow(
    owner: object, factory: Callable[..., Any], shape: Shape, *, context: Shape | None = None
) -> FlowTransform:
    """Make a flow whose y are images; its x may be images too, or flat noise.

    Args:
        owner: Who wants it; its class is named in messages.
        factory: A class, or `functools.partial` of one, called with ``shape``.
        shape: Shape ``(C, H, W)`` of an image.
        context: Given to the factory as ``context_dim``; None for a flow without a context.

    Raises:
        ValueError: If the factory is a flow already, or the flow is none, of another shape or another context.
    """
    who = type(owner).__name__
    check_factory(owner, factory, images=True)
    flow = factory(shape) if context is None else factory(shape, context_dim=context)
    if not isinstance(flow, FlowTransform):
        raise ValueError(f"{who} got a flow= that makes {type(flow).__name__}: it must make a flow, e.g. flow=Glow.")
    if flow.out_shape != shape:
        raise ValueError(
            f"{who} got a flow= that makes {flow}, which maps {flow.shape} to {flow.out_shape}: what it gives must be "
            f"images of shape {shape}, with which flow= is called."
        )
    if flow.context_shape != context:
        needed = "left out: there is no context" if context is None else f"{context}, which it gets by itself"
        raise ValueError(f"{who} got a flow= that makes {flow}: its context_dim must be {needed}.")
    return flow
