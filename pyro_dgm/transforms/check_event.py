# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a value is one that a flow can map: its shape, and its type of number."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro_dgm.transforms.base import FlowTransform


def check_event(flow: "FlowTransform", x: Tensor, *, back: bool = False) -> None:
    """Say what is wrong with a value, if anything is.

    Args:
        flow: What is to map it.
        x: The value.
        back: Whether it is a y, for the inverse.

    Raises:
        ValueError: If the last sizes are not those of an event, it is not floating point, or the flow's parameters are
            of another precision.
    """
    shape = flow.out_shape if back else flow.shape
    if x.shape[-len(shape) :] != shape:
        flatten = " Images need x.flatten(1) first." if flow.shape == flow.out_shape else ""
        sizes = f"size must be {shape[0]}.{flatten}" if len(shape) == 1 else f"sizes must be {shape}."
        raise ValueError(f"{titled(flow)} got a value of shape {tuple(x.shape)}: its last {sizes}")
    if not x.is_floating_point():
        raise ValueError(
            f"{type(flow).__name__} got a value of dtype {x.dtype}: it must be floating point. Integers become "
            f"continuous by dequantisation: x + torch.rand_like(x.float())."
        )
    weight = next(flow._weights(), x)
    if weight.dtype != x.dtype and {weight.dtype, x.dtype} <= {torch.float32, torch.float64}:
        raise ValueError(
            f"{type(flow).__name__} has parameters of dtype {weight.dtype} and got a value of dtype {x.dtype}: use "
            f"x.to({weight.dtype}), or flow.to({x.dtype})."
        )


def titled(flow: "FlowTransform", *, context: bool = False) -> str:
    """Name a flow in a message, with the shape of x, and that of y where it is another."""
    shape, out_shape = (sizes[0] if len(sizes) == 1 else sizes for sizes in (flow.shape, flow.out_shape))
    if shape != out_shape:
        sizes = f"{shape} -> {out_shape}"
    else:
        sizes = f"dim={shape}" if isinstance(shape, int) else f"shape={shape}"
    takes = f", context_dim={flow.context_dim}" if context and flow.context_dim is not None else ""
    return f"{type(flow).__name__}({sizes}{takes})"
