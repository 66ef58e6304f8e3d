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
from torch.optim.optimizer import register_optimizer_step_post_hook


class OnePass(Transform):
    """A bijective transform made of two functions, each of which gives a value and its log-determinant at once.

    Pyro samples a site by ``y = t(x)`` and scores it by ``x = t.inv(y)`` and ``t.log_abs_det_jacobian(x, y)``. So that
    this is one pass, the last x, y and log-determinant are remembered, under rules that make it impossible to get
    a number from the past:

    - They are given back for the very tensors x and y only, unchanged, while no optimiser has stepped since, no
      parameter was written to, replaced or moved, and, where gradients are wanted now, they were recorded then.
    - A sample's pair is forgotten when the sample is. What scoring computed is used up by the log-determinant's
      reader. Nothing is remembered in copies, in pickles, or under `torch.func` and `torch.compile`.

    To write one: implement the two functions and :meth:`tensors`.
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

    def __call__(self, x: Tensor) -> Tensor:
        """Map x to y."""
        memory = self._memory
        if memory is not None and memory.x() is x and (y := memory.y()) is not None and self._holds(memory, x, y):
            return y
        y, logdet = self.forward_and_logdet(x)
        self._remember(x, y, logdet, sampled=True)
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        memory = self._memory
        if memory is not None and memory.y() is y and (x := memory.x()) is not None and self._holds(memory, x, y):
            return x
        x, logdet = self.inverse_and_logdet(y)
        self._remember(x, y, -logdet, sampled=False)
        return x

    def _call(self, x: Tensor) -> Tensor:
        return self.forward_and_logdet(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_logdet(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Give log|det dy/dx|, remembered or computed from x."""
        memory = self._memory
        if memory is not None and memory.x() is x and memory.y() is y and self._holds(memory, x, y):
            if not memory.sampled:
                self.clear_cache()
            return memory.logdet
        return self.forward_and_logdet(x)[1]

    def clear_cache(self) -> None:
        """Forget the last pair."""
        self._memory = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None, "_inv": None}

    def _remember(self, x: Tensor, y: Tensor, logdet: Tensor, *, sampled: bool) -> None:
        self._memory = None
        if not self._cache_size or torch.compiler.is_compiling() or _under_functorch():
            return
        me = weakref.ref(self)

        def forget(dead: Any) -> None:  # noqa: ANN401 -- a weak reference
            owner = me()
            if owner is not None and (memory := owner._memory) is not None and dead in (memory.x, memory.y):
                owner._memory = None

        weak_x = (lambda: x) if sampled else weakref.ref(x, forget)  # nobody else keeps the noise behind a sample
        state = _state(self.tensors(), x, y)
        self._memory = _Memory(weak_x, weakref.ref(y, forget), logdet, sampled, torch.is_grad_enabled(), state)

    def _holds(self, memory: "_Memory", x: Tensor, y: Tensor) -> bool:
        recorded = memory.grad or not torch.is_grad_enabled()
        return recorded and not _under_functorch() and memory.state == _state(self.tensors(), x, y)


class _Memory(NamedTuple):
    x: Any
    y: Any
    logdet: Tensor
    sampled: bool
    grad: bool
    state: tuple[Any, ...]


_steps = [0]
"""Number of optimiser steps in this process since the first pair was remembered."""


def _count_step(*_: Any) -> None:  # noqa: ANN401 -- an optimiser and what its step was called with
    _steps[0] += 1


def _state(tensors: Iterable[Tensor], x: Tensor, y: Tensor) -> tuple[Any, ...]:
    """What has to be as it was. Fused optimisers do not raise the version of what they write to: hence the steps."""
    if not _steps[1:]:
        _steps.append(1)
        register_optimizer_step_post_hook(_count_step)
    return (_steps[0], *((id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in (*tensors, x, y)))


def _under_functorch() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None
