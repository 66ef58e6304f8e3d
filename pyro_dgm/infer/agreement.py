# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a compiled program gives what the program itself gives from the same noise, and how to try without traces."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

HALF = 0.1
"""Relative difference that is allowed where networks compute with 8 bits, in which every kernel rounds differently."""


class Effects:
    """What running a program leaves behind: where generators of random numbers are, and what it wrote to tensors.

    Args:
        tensors: What it may write to.
        drawing: Tensors that tell on which devices it draws, beside the CPU.
    """

    def __init__(self, tensors: Iterable[Tensor], *, drawing: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self.devices = list({tensor.device for tensor in drawing if tensor.is_cuda})
        self.copies = [tensor.detach().clone() for tensor in self.tensors]
        self.states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self.devices)]

    @torch.no_grad()
    def undo(self) -> None:
        """Return to what was remembered."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            if not torch.equal(tensor, copy):
                tensor.detach().copy_(copy)
        torch.set_rng_state(self.states[0])
        for device, state in zip(self.devices, self.states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)


def disagreement(
    values: Sequence[Tensor], slopes: Sequence[Tensor], wanted: Sequence[Tensor], wanted_slopes: Sequence[Tensor]
) -> str | None:
    """Say by how much compiled values or gradients are off; ``None`` if it is no more than rounding.

    Values may differ by sqrt(eps) of the largest of them, and the whole gradient by 30 times that of its norm: this
    finds mistakes, and is no test of precision.

    Args:
        values: What the compiled program gave.
        slopes: Its gradients.
        wanted: What the program itself gave.
        wanted_slopes: Its gradients.
    """
    if [value.shape for value in values] != [value.shape for value in wanted]:
        return "its values have other shapes"
    if not wanted:
        return None
    tolerance = _tolerance(wanted)
    ours, theirs = _flat(values), _flat(wanted)
    off = _distance(ours, theirs) / (1 + theirs.nan_to_num(0.0, 0.0, 0.0).abs().amax())
    if not bool(off <= tolerance):
        return f"its values differ by {float(off):.1g} of the largest"
    if not slopes:
        return None
    ours, theirs = _flat(slopes), _flat(wanted_slopes)
    off = _distance(ours, theirs, norm=True) / (theirs.nan_to_num(0.0, 0.0, 0.0).norm() + tolerance)
    return None if bool(off <= 30 * tolerance) else f"its gradient differs by {float(off):.1g} of its norm"


def _tolerance(wanted: Sequence[Tensor]) -> float:
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return HALF
    floats = [value.dtype for value in wanted if value.is_floating_point()]
    return max((HALF if torch.finfo(t).bits == 16 else torch.finfo(t).eps ** 0.5 for t in floats), default=0.0)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().flatten().double() for part in parts])


def _distance(ours: Tensor, theirs: Tensor, *, norm: bool = False) -> Tensor:
    """Measure how far apart they are; numbers that are infinite or none in both, alike, are not."""
    off = torch.where((ours == theirs) | (ours.isnan() & theirs.isnan()), 0.0, (ours - theirs).abs())
    off = off.nan_to_num(torch.inf, torch.inf, torch.inf)
    return off.norm() if norm else off.amax()
