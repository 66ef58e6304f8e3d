# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Let the layers of a flow that start from a batch start from data, and never from what the flow itself draws."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.one_pass import under_functorch


def hold_starts(flow: FlowTransform) -> None:
    """Make every ActNorm of a flow wait for :func:`start_by_data`.

    Args:
        flow: The flow, or a stack of flows.
    """
    for norm in _norms(flow):
        norm.held = True


def start_by_data(flow: FlowTransform, data: Callable[[], Tensor]) -> None:
    """Score data once, and let every ActNorm start that is in training and has not done so.

    It is asked each time whether one is left, so that a stack that is loaded later starts as well; once none is, this
    costs a walk over the modules. Where ActNorm does not start by itself, nothing does here.

    Args:
        flow: The flow from noise to data.
        data: Gives data, shape ``(B, *flow.out_shape)``; called only if needed.
    """
    waiting = [norm for norm in _norms(flow) if norm.training and norm._ask]
    if not waiting or under_functorch():
        return
    try:
        for norm in waiting:
            norm.held = False
        with torch.no_grad():
            flow.inverse_and_logdet(data())
    finally:
        for norm in waiting:
            norm.held = True


def _norms(flow: FlowTransform) -> Iterator[ActNorm]:
    return (module for module in flow.modules() if isinstance(module, ActNorm))
