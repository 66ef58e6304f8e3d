# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Transforms that compute value and log-determinant together, and remember the last pair for who samples and scores."""

import weakref
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.distributions.transforms import _InverseTransform
from torch.optim.optimizer import register_optimizer_step_post_hook

from pyro_dgm.nn.being_captured import being_captured


class OnePass(Transform):
    """A bijective transform made of two functions, each of which gives a value and its log-determinant at once.

    Pyro samples a site by ``y = t(x)`` and scores it by ``x = t.inv(y)`` and ``t.log_abs_det_jacobian(x, y)``. So that
    this is one pass, the last x, y and log-determinant are remembered, under rules that make it impossible to get
    a number from the past:

    - They are given back on the way back only, for the very tensors x and y, unchanged, while no optimiser has stepped
      since, no parameter was written to, replaced or moved, no module went from training to evaluation, and, where
      gradients are wanted now, they were recorded then. What is written through ``tensor.data`` nobody can see: use
      `no_grad`.
    - A pair is forgotten when what was computed is: the sample, or the noise behind a datum; and what scoring computed
      when its log-determinant is read, so that who scores a datum twice has two graphs. Nothing is remembered in
      copies, in pickles, or under `torch.func`, `torch.compile` and `torch.inference_mode`.

    To write one: implement the two functions, :meth:`tensors` and :meth:`modes`.
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector
    _memory: "_Memory | None" = None

    @abstractmethod
    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x to y, with log|det dy/dx| of the shape of x without its event dimensions."""

    @abstractmethod
    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map y to x, with log|det dx/dy|, the negative of the forward one."""

    @abstractmethod
    def tensors(self) -> Iterable[Tensor]:
        """Give all tensors but x and y that a result depends on."""

    @abstractmethod
    def modes(self) -> Iterable[bool]:
        """Tell of each module that takes part whether it is in training."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map x to y."""
        memory = self._memory
        if memory is not None and memory.x() is x and (y := memory.y()) is not None:
            if self._gives(memory, x, y, forward=True):
                return y
        y, logdet = self.forward_and_logdet(x)
        y = y.view_as(y)  # the log-determinant's graph may hold on to its own y, and must not keep this one alive
        self._remember(x, y, logdet, forward=True)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        memory = self._memory
        if memory is not None and memory.y() is y and (x := memory.x()) is not None:
            if self._gives(memory, x, y, forward=False):
                return x
        x, logdet = self.inverse_and_logdet(y)
        x = x.view_as(x)
        self._remember(x, y, -logdet, forward=False)
        return x

    def _call(self, x: Tensor) -> Tensor:
        return self.forward_and_logdet(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_logdet(y)[0]

    @property
    def inv(self) -> Transform:
        """The inverse. It is made anew, so that no cycle keeps activations alive."""
        return _InverseTransform(self)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Give log|det dy/dx|, remembered or computed from x."""
        memory = self._memory
        if memory is not None and memory.x() is x and memory.y() is y and self._holds(memory, x, y):
            if not memory.forward:
                self.clear_cache()
            return memory.logdet
        return self.forward_and_logdet(x)[1]

    def clear_cache(self) -> None:
        """Forget the last pair."""
        self._memory = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None, "_inv": None}

    def _remember(self, x: Tensor, y: Tensor, logdet: Tensor, *, forward: bool) -> None:
        self._memory = None
        if not self._cache_size or torch.compiler.is_compiling() or under_functorch():
            return
        kept = tuple(self.tensors())  # as long as they are here, no other tensor has their identity
        if any(tensor.is_inference() for tensor in (*kept, x, y)):  # these do not count what is written to them
            return
        me = weakref.ref(self)

        def forget(dead: Any) -> None:  # noqa: ANN401 -- a weak reference
            owner = me()
            if owner is not None and (memory := owner._memory) is not None and dead in (memory.x, memory.y):
                owner._memory = None

        # What came in is held, for nobody else may keep the noise behind a sample; what went out ends the memory.
        get_x = (lambda: x) if forward else weakref.ref(x, forget)
        get_y = weakref.ref(y, forget) if forward else (lambda: y)
        state = _state(self.modes(), (*kept, x, y, logdet))
        self._memory = _Memory(get_x, get_y, logdet, forward, torch.is_grad_enabled(), kept, state)

    def _gives(self, memory: "_Memory", x: Tensor, y: Tensor, *, forward: bool) -> bool:
        """Whether to give back what is remembered: on the way back, or once that was gone, as `ComposeTransform` does.

        Who calls twice in one direction, with the first result at hand, may have gone backward through its graph.
        """
        if (forward is memory.forward and not memory.returned) or not self._holds(memory, x, y):
            return False
        self._memory = memory._replace(returned=True)
        return True

    def _holds(self, memory: "_Memory", x: Tensor, y: Tensor) -> bool:
        recorded = memory.grad or not torch.is_grad_enabled()
        if not recorded or torch.compiler.is_compiling() or under_functorch():
            return False
        return memory.state == _state(self.modes(), (*self.tensors(), x, y, memory.logdet))


class _Memory(NamedTuple):
    x: Any
    y: Any
    logdet: Tensor
    forward: bool
    grad: bool
    kept: tuple[Tensor, ...]
    state: tuple[Any, ...]
    returned: bool = False


_steps = [0]
"""Number of optimiser steps in this process since the first pair was remembered."""


def _count_step(*_: Any) -> None:  # noqa: ANN401 -- an optimiser and what its step was called with
    _steps[0] += 1


def weights_were_written() -> None:
    """Tell that weights have changed in a way that nobody could see, as by a graph of kernels with an optimiser."""
    _count_step()


def _state(modes: Iterable[bool], tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    """What has to be as it was. Fused optimisers do not raise the version of what they write to: hence the steps."""
    if not _steps[1:]:
        _steps.append(1)
        register_optimizer_step_post_hook(_count_step)
    captured = being_captured()  # then there is no memory that a pointer could point to
    seen = (
        (id(t), 0 if captured else t.data_ptr(), 0 if t.is_inference() else t._version, t.requires_grad)
        for t in tensors
    )
    return (_steps[0], *modes, *seen)


def under_functorch() -> bool:
    """Whether a transform of `torch.func` is at work. The compiler looks like one from inside, and is none."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
