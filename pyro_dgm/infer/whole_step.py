# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A whole training step as one CUDA graph: bound, gradients, clipping and optimiser without a word from the host."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_dgm.infer.captured import Captured
from pyro_dgm.infer.recorded_run import RecordedRun
from pyro_dgm.transforms.one_pass import weights_were_written

Terms = dict[str, Tensor]
Recorder = Callable[[Callable[[], Terms]], tuple[Callable[[], object], Terms]]
"""Records what a function starts on a device; gives what repeats it, and the tensors in which its results will be."""

WARM_UP = 3
"""Ordinary steps before one is recorded: in them the optimiser makes its state, and kernels are chosen and loaded."""


class WholeStep:
    """Repeats the step of a captured objective as one CUDA graph, where that is possible.

    The optimiser's learning rates become tensors, so that a schedule is followed, and its state moves to the device.

    Args:
        captured: The objective's forward pass.
        optimizer: An optimiser that has the option ``capturable``, as Adam; with any other nothing is repeated.
        parameters: What is trained.
        clip_norm: Largest norm of the gradient, or ``None``.
        recorder: What records a step.
        device_type: Where steps are recorded.
    """

    def __init__(
        self,
        captured: Captured,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        *,
        clip_norm: int | float | None = None,
        recorder: Recorder | None = None,
        device_type: str = "cuda",
    ) -> None:
        self.captured, self.optimizer, self.parameters, self.clip_norm = captured, optimizer, parameters, clip_norm
        self.recorder, self.device_type = recorder or cuda_graph, device_type
        self.enabled = all("capturable" in group for group in optimizer.param_groups)
        self._steps: dict[Any, int] = {}
        self._recorded: dict[Any, _Recorded] = {}
        self.prepare()

    def prepare(self) -> None:
        """Make the optimiser repeatable, also after a state was loaded into it; what was recorded is forgotten."""
        self._steps, self._recorded = {}, {}
        if not self.enabled or {parameter.device.type for parameter in self.parameters} != {self.device_type}:
            return
        for group in self.optimizer.param_groups:
            group["capturable"] = True
            lr, device = group["lr"], self.parameters[0].device
            group["lr"] = lr.to(device) if isinstance(lr, Tensor) else torch.tensor(float(lr), device=device)
        for parameter, state in self.optimizer.state.items():
            if isinstance(count := state.get("step"), Tensor):
                state["step"] = count.to(parameter.device, torch.float32)

    def __call__(self, batch: Tensor) -> Terms | None:
        """Take the step; ``None`` if it has to be taken in the ordinary way.

        Args:
            batch: Shape ``(B, *event)``.

        Returns:
            The objective's scalars, the same tensors each time, and ``grad_norm`` if gradients are clipped.
        """
        if not self.enabled or batch.device.type != self.device_type:
            return None
        kind = (batch.shape, batch.dtype, torch.is_autocast_enabled(self.device_type))
        step = self._recorded.get(kind)
        if step is not None and step.holds(batch):
            return step(batch)
        self._recorded.pop(kind, None)
        self._steps[kind] = self._steps.get(kind, 0) + 1
        run = self.captured.last
        if self._steps[kind] <= WARM_UP or run is None or run.recording.loss is None:
            return None
        if run.shapes != [(batch.shape, batch.dtype)] or run.inputs([batch]) is None:
            return None  # the last call was another one, as in validation
        return self._record(kind, run, batch)

    def _record(self, kind: Any, run: RecordedRun, batch: Tensor) -> Terms | None:  # noqa: ANN401
        """Record the step and take it for the first time."""
        place = batch.clone()
        inputs = run.inputs([place])
        if inputs is None:
            return None
        self._steps[kind] = 0
        try:
            replay, terms = self.recorder(lambda: self._body(run, inputs))
        except RuntimeError as error:  # an operation that a graph cannot hold
            self.enabled = False
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"{self.captured.name} is compiled, but its step is no CUDA graph: {first}.", stacklevel=4)
            return None
        self._recorded[kind] = step = _Recorded(replay, terms, run, place, _memory(inputs))
        return step(batch)

    def _body(self, run: RecordedRun, inputs: list[Tensor]) -> Terms:
        values, slopes = run.raw(inputs)
        for place, slope in zip(run.recording.learned, slopes, strict=True):
            weight = inputs[place]
            # Fused optimisers take for granted what autograd sees to: that it lies in memory as the weight does.
            same = slope.stride() == weight.stride()
            weight.grad = slope if same else torch.empty_like(weight).copy_(slope)
        terms: Terms = run.recording.assemble(values)
        if self.clip_norm is not None:
            terms["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return terms


@dataclass(frozen=True)
class _Recorded:
    """A recorded step, with the memory that it works in."""

    replay: Callable[[], object]
    terms: Terms
    run: RecordedRun
    place: Tensor
    memory: list[int]

    def holds(self, batch: Tensor) -> bool:
        """Whether everything that it reads is still where it was."""
        inputs = self.run.inputs([batch])
        return inputs is not None and _memory(inputs) == self.memory

    def __call__(self, batch: Tensor) -> Terms:
        self.place.copy_(batch, non_blocking=True)
        self.replay()
        weights_were_written()
        return dict(self.terms)


def _memory(inputs: list[Tensor]) -> list[int]:
    """Say where the inputs are; the last, the batch, is copied to its place."""
    return [tensor.data_ptr() for tensor in inputs[:-1]]


def cuda_graph(body: Callable[[], Terms]) -> tuple[Callable[[], object], Terms]:
    """Record a function's kernels as a CUDA graph; torch's generator moves on with every replay."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        terms = body()
    return graph.replay, terms
