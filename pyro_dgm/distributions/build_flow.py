# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Call the factory of a flow, and say what is wrong with what it makes."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.distributions.conditional import ConditionalTransform
from torch.distributions import Transform


def build_flow(owner: object, factory: Callable[..., Any], latent: int, *, context: int | None = None) -> Any:  # noqa: ANN401 -- a flow of this package, or a stock transform
    """Make a flow for a posterior or a prior.

    Args:
        owner: Who wants it; its class is named in messages.
        factory: A class, or `functools.partial` of one, called with ``latent``.
        latent: Dimension of the flow.
        context: Given to the factory as ``context_dim`` if it has such an option; None for a flow without a context.

    Raises:
        ValueError: If the factory is a flow already, or the flow is none, of another dimension or another context.
    """
    who = type(owner).__name__
    if isinstance(factory, Transform):
        raise ValueError(
            f"{who} got the flow {factory}: it needs what makes one from the dimension, e.g. flow=Planar or "
            f"flow=partial(Planar, depth=4)."
        )
    flow = factory(latent, context_dim=context) if context and _takes_context(factory) else factory(latent)
    if not isinstance(flow, (Transform, ConditionalTransform) if context else Transform):
        raise ValueError(f"{who} got a flow= that makes {type(flow).__name__}: it must make a flow, e.g. flow=Planar.")
    if getattr(flow, "shape", (latent,)) != (latent,):
        raise ValueError(f"{who}(latent={latent}) got the flow {flow}: its dimension must be {latent}.")
    if getattr(flow, "context_dim", None) not in (None, context):
        needed = f"{context}, which it gets by itself" if context else "left out: there is no context"
        raise ValueError(f"{who}(latent={latent}) got the flow {flow}: its context_dim must be {needed}.")
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
