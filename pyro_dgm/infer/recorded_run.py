# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run a recorded program: look up the tensors that it depends on, run its graph, and hand its gradient to autograd."""

from typing import Any, Literal

import pyro
import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_dgm.infer.hands_off import NotCapturable
from pyro_dgm.infer.recording import Recording
from pyro_dgm.infer.surroundings import Surroundings
from pyro_dgm.nn.without_autocast import without_autocast

Backend = Literal["inductor", "graph"]


class RecordedRun:
    """One recording, compiled.

    Args:
        recording: The program.
        surroundings: Where its free tensors are.
        arguments: The arguments that it was recorded with, flat.
        backend: ``"inductor"`` or ``"graph"``.
    """

    def __init__(
        self, recording: Recording, surroundings: Surroundings, arguments: list[Any], *, backend: Backend
    ) -> None:
        self.recording, self.surroundings = recording, surroundings
        self.tensors = sum(value is None for value in recording.values)
        self.shapes = [(t.shape, t.dtype) for t in arguments if isinstance(t, Tensor)]
        everything = [*recording.free, *(argument for argument in arguments if isinstance(argument, Tensor))]
        self.mirrors = _mirrors(everything)
        inputs = self.inputs(arguments)
        if inputs is None:
            raise NotCapturable("it changes what it depends on each time it runs")
        self.compiled = _compile(recording, inputs, backend)

    def inputs(self, arguments: list[Any]) -> list[Tensor] | None:
        """Collect the tensors to run on; ``None`` if the program would not be the one that was recorded."""
        if self.surroundings.changed() is not None:
            return None
        free = self.surroundings.tensors()
        if free is None:
            return None
        inputs = free + [argument for argument in arguments if isinstance(argument, Tensor)]
        for index, mirror in self.mirrors.items():
            inputs[index] = mirror.of(inputs[index])
        return inputs

    def raw(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Run the graph: values and gradients."""
        with torch.no_grad():
            outputs = self.compiled(*inputs)
        return list(outputs[: self.tensors]), list(outputs[self.tensors :])

    def give(self, values: list[Tensor], slopes: list[Tensor], inputs: list[Tensor]) -> Any:  # noqa: ANN401
        """Put together what the program gives, with its gradient, and repeat its parameter statements."""
        recording = self.recording
        if recording.statements and am_i_wrapped():
            for name in recording.statements:
                pyro.param(name)
        if recording.loss is not None:
            learned = [inputs[index] for index in recording.learned]
            values[recording.loss] = _WithSlopes.apply(values[recording.loss], slopes, *learned)
        return recording.assemble(values)

    def __call__(self, inputs: list[Tensor]) -> Any:  # noqa: ANN401 -- what the program gives
        """Run the program on what `inputs` gave."""
        return self.give(*self.raw(inputs), inputs)

    def slopes_of(self, values: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        """Differentiate what the program itself gave, to compare; its graph is kept."""
        if self.recording.loss is None:
            return []
        learned = [inputs[index] for index in self.recording.learned]
        loss = values[self.recording.loss]
        with without_autocast(loss):
            found = torch.autograd.grad(loss, learned, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(t) if slope is None else slope for t, slope in zip(learned, found, strict=True)]


class _WithSlopes(torch.autograd.Function):
    """A number whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, slopes: list[Tensor], *learned: Tensor) -> Tensor:
        """Give the value."""
        ctx.slopes = slopes
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand the gradients over. They are not kept, so that a parameter may have them without a copy."""
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is None:
            raise RuntimeError("A captured program's gradient can be taken once; evaluate it again for another.")
        if grad.device.type != "cpu" or float(grad) != 1:
            slopes = torch._foreach_mul(slopes, grad)
        return None, None, *slopes


class _Mirror:
    """A number that lives on the CPU, such as beta, on the device where a program runs."""

    def __init__(self, tensor: Tensor, device: torch.device) -> None:
        self.value = float(tensor)
        self.copy = torch.full_like(tensor, self.value, device=device)

    def of(self, tensor: Tensor) -> Tensor:
        """Give the copy, brought up to date; the device is not waited for."""
        if (value := float(tensor)) != self.value:
            self.value = value
            self.copy.fill_(value)
        return self.copy


def _mirrors(inputs: list[Tensor]) -> dict[int, _Mirror]:
    """Make copies of single numbers on the CPU, if the program runs elsewhere, so that a CUDA graph can read them."""
    device = next((tensor.device for tensor in inputs if tensor.device.type != "cpu"), None)
    if device is None or device.type == "meta":
        return {}
    return {
        index: _Mirror(tensor, device)
        for index, tensor in enumerate(inputs)
        if tensor.device.type == "cpu" and tensor.dim() == 0 and tensor.is_floating_point() and not tensor.requires_grad
    }


def _compile(recording: Recording, inputs: list[Tensor], backend: Backend) -> Any:  # noqa: ANN401 -- a callable
    if backend == "graph":
        return recording.graph
    import torch._inductor

    with torch.no_grad(), pyro.validation_enabled(is_validate=False):  # compiling switches it off for good otherwise
        return torch._inductor.compile(recording.graph, [*inputs], options=OPTIONS)


OPTIONS = {
    "fallback_random": True,  # torch's own generators: the same numbers from a seed as without compilation
}
