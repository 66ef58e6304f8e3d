# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run flows without keeping activations: the way back finds every input again from the output."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_dgm.nn.apply_function import apply_function
from pyro_dgm.transforms.base import FlowTransform, Parameters, Pull
from pyro_dgm.transforms.coupling import Coupling
from pyro_dgm.transforms.module_tree import module_tree
from pyro_dgm.transforms.random_state import RandomState
from pyro_dgm.transforms.repeatable import why_not_repeatable

Weights = tuple[dict[str, Any], str]
"""Where a weight is kept: the dictionary of a module, and its name in it."""


LOST = 1e-2
SMALL = 1e-3
"""How far, relative to the largest number in it, an input may be off that is found again, before that is an error; and
the least that this number is taken for, as zeros come back with rounding."""


class Slot(int):
    """The place of a tensor in a list, where the tensor itself would stand among parameters."""


@dataclass(frozen=True)
class Step:
    """One flow of a chain.

    Attributes:
        flow: The flow.
        inverse: Whether it runs backwards.
        parameters: What its `bind` gave, with a `Slot` for each tensor.
        weights: The slot of every parameter of the module.
        modes: Of each module in it, whether it was in training.
    """

    flow: FlowTransform
    inverse: bool
    parameters: Parameters
    weights: tuple[Slot, ...]
    modes: tuple[bool, ...]

    def run(self, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map x by the flow; with the log-determinant."""
        parameters = _filled(self.parameters, tensors)
        run = self.flow._inverse_and_logdet if self.inverse else self.flow._forward_and_logdet
        return run(x, parameters)

    def keeps_input(self, *, random: bool) -> bool:
        """Whether x is to be kept, as it cannot be found from y; a coupling needs its network once for both."""
        flows = (module for module in module_tree(self.flow) if isinstance(module, FlowTransform))
        return (random and not isinstance(self.flow, Coupling)) or not all(flow.exact_inverse for flow in flows)

    def back(self, x: Tensor | None, y: Tensor, tensors: Sequence[Tensor], pull: Pull) -> tuple[Tensor, Tensor]:
        """Give x, found from y unless it was kept, and its gradient."""
        if x is None:
            return self.flow._retrace(y, _filled(self.parameters, tensors), pull, inverse=self.inverse)
        x = x.detach().requires_grad_()
        (grad,) = pull(self.run(x, tensors), (x,))
        return x.detach(), grad


class Kept(NamedTuple):
    """What is kept of one step.

    Attributes:
        x: The place of its input among the kept ones; None if it is found from the output.
        random: Where random numbers were before it; None if it drew none.
    """

    x: int | None
    random: RandomState | None


def retraced(flow: FlowTransform, x: Tensor, parameters: Parameters, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Map x by a flow of many steps, of which only the last output is kept for the gradient.

    Args:
        flow: A flow that its own steps undo.
        x: Shape ``(*batch, *event)``.
        parameters: What its `bind` gave.
        inverse: Whether it runs backwards.

    Returns:
        The value, and the log-determinant of shape ``(*batch)``.
    """
    tensors: dict[int, Tensor] = {}

    def place(tensor: Tensor) -> Slot:
        tensors.setdefault(id(tensor), tensor)
        return slots.setdefault(id(tensor), Slot(len(slots)))

    slots: dict[int, Slot] = {}
    steps = []
    for part, own, back in flow._steps(parameters, inverse=inverse):
        _check(flow, part)
        weights = tuple(place(owner[name]) for owner, name in _weights(part))
        steps.append(Step(part, back, _placed(own, place), weights, tuple(part.modes())))
    return apply_function(_Retrace, steps, x, *tensors.values())


class _Retrace(torch.autograd.Function):
    """The flows of a chain, one after the other. Its gradient is that of the chain, and has none itself."""

    @staticmethod
    def forward(ctx: Any, steps: Sequence[Step], x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Map x by every step."""
        total: Any = 0
        inputs = [x] if is_validation_enabled() else []  # to compare with what is found
        ctx.compares = bool(inputs)
        kept, before = [], RandomState.now(x.device)
        for step in steps:
            y, logdet = step.run(x, tensors)
            total = total + logdet
            drew = not before.is_at(after := RandomState.now(x.device))
            keeps = step.keeps_input(random=drew)
            kept.append(Kept(len(inputs) if keeps else None, before if drew else None))
            inputs += [x] if keeps else []
            x, before = y, after
        ctx.steps, ctx.kept = steps, kept
        ctx.save_for_backward(x, *inputs, *tensors)
        return x, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        """Go back through the steps: what came into each is found from what went out, then the gradient follows."""
        x, *saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        inputs, tensors = saved[: len(saved) - len(needed)], saved[len(saved) - len(needed) :]
        leaves = [
            tensor if tensor.is_leaf and tensor.requires_grad is need else tensor.detach().requires_grad_(need)
            for tensor, need in zip(tensors, needed, strict=True)
        ]
        grads: list[Tensor | None] = [None] * len(leaves)
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            for step, kept in zip(reversed(ctx.steps), reversed(ctx.kept), strict=True):
                pull = _puller(step, grad, grad_logdet, leaves, grads)
                start = None if kept.x is None else inputs[kept.x]
                with _as_it_was(step, leaves), nullcontext() if kept.random is None else kept.random.again():
                    x, grad = step.back(start, x, leaves, pull)
        if ctx.compares:
            _compare(x, inputs[0])
        return None, grad, *grads


def _compare(found: Tensor, x: Tensor) -> None:
    """Refuse a gradient at an input that is not the one that was mapped. It reads a number, hence the validation."""
    if not x.numel():
        return
    off = (found - x).abs().amax() / x.abs().amax().clamp_min(SMALL)
    if not off <= LOST:
        raise ValueError(
            f"Reversible found its input again only up to {float(off):.1g} of its largest number: its flows are too "
            f"ill-conditioned for {x.dtype}, and gradients would be wrong. Let every ActNorm start from data, lower "
            f"the learning rate or the bounds of couplings, or use float64, or Compose."
        )


def _check(flow: FlowTransform, part: FlowTransform) -> None:
    """A module may have been put in, or changed, since the flow was made."""
    for module in module_tree(part):
        if (reason := why_not_repeatable(module)) is not None:
            raise ValueError(
                f"{type(flow).__name__} holds a {type(module).__name__} in {type(part).__name__}, which {reason}: "
                f"inputs could not be found again from outputs. Use Compose, or leave it out."
            )


def _puller(
    step: Step, grad_y: Tensor, grad_logdet: Tensor, leaves: Sequence[Tensor], grads: list[Tensor | None]
) -> Pull:
    """Make what goes back from y, whose gradient is given; those of the tensors are added to those of later steps."""
    wanted = [slot for slot in {*step.weights, *_slots(step.parameters)} if leaves[slot].requires_grad]

    def pull(outputs: tuple[Tensor, Tensor], starts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pairs = zip(outputs, (grad_y, grad_logdet), strict=True)
        ends, weights = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
        inputs = (*starts, *(leaves[slot] for slot in wanted))
        found = torch.autograd.grad(ends, inputs, weights, allow_unused=True)
        for slot, new in zip(wanted, found[len(starts) :], strict=True):
            old = grads[slot]
            grads[slot] = new if old is None else old if new is None else old + new
        reached = zip(starts, found, strict=False)
        return tuple(torch.zeros_like(start) if got is None else got for start, got in reached)

    return pull


@contextmanager
def _as_it_was(step: Step, leaves: Sequence[Tensor]) -> Iterator[None]:
    """Let a flow have the weights and modes of its pass: `functional_call` and others lend them for that time only."""
    moved = [
        (owner, name, owner[name], leaves[slot])
        for (owner, name), slot in zip(_weights(step.flow), step.weights, strict=True)
        if owner[name] is not leaves[slot]
    ]
    modules = zip(module_tree(step.flow), step.modes, strict=True)
    turned = [module for module, mode in modules if module.training is not mode]
    _exchange(turned, [(owner, name, then) for owner, name, _, then in moved])
    try:
        yield
    finally:
        _exchange(turned, [(owner, name, now) for owner, name, now, _ in moved])


def _exchange(turned: Sequence[torch.nn.Module], weights: Sequence[tuple[dict[str, Any], str, Tensor]]) -> None:
    for module in turned:
        module.training = not module.training
    for owner, name, weight in weights:
        owner[name] = weight


def _weights(flow: FlowTransform) -> list[Weights]:
    """Every place of a module and those in it that has a weight, always in the same order."""
    places = ((module._parameters, name) for module in module_tree(flow) for name in module._parameters)
    return [(owner, name) for owner, name in places if owner[name] is not None]


def _placed(parameters: Any, place: Any) -> Any:  # noqa: ANN401 -- tensors, tuples of them, and what is neither
    if isinstance(parameters, tuple):
        return tuple(_placed(part, place) for part in parameters)
    return place(parameters) if isinstance(parameters, Tensor) else parameters


def _filled(parameters: Any, tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401 -- as above
    if isinstance(parameters, tuple):
        return tuple(_filled(part, tensors) for part in parameters)
    return tensors[parameters] if isinstance(parameters, Slot) else parameters


def _slots(parameters: Any) -> Iterator[Slot]:  # noqa: ANN401 -- as above
    if isinstance(parameters, tuple):
        for part in parameters:
            yield from _slots(part)
    elif isinstance(parameters, Slot):
        yield parameters
