# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Compile a bound: its model and guide are recorded once, and run from then on without Pyro and Python."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, get_args
from unittest.mock import patch

import pyro
import torch
from torch import Tensor, nn

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bound_module import BoundModule
from pyro_dgm.infer.captured import Captured
from pyro_dgm.infer.local_parameters import Program, owners
from pyro_dgm.infer.recorded_run import Backend
from pyro_dgm.nn.being_captured import being_captured


class Compiled(pyro.infer.ELBO):
    """A bound that gives the same values and gradients as another, sooner; `compiled` makes it, and says how it works.

    Attributes:
        bound: The other. What it has (``beta``, ``kl``, ``num_particles`` ...) this one has, too.
    """

    def __init__(self, bound: Any, *, backend: Backend = "inductor") -> None:
        if isinstance(bound, Compiled):
            raise ValueError("compiled got a bound that is compiled already.")
        if not isinstance(bound, pyro.infer.ELBO) or not callable(getattr(bound, "differentiable_loss", None)):
            raise TypeError(
                f"compiled got {type(bound).__name__}: it needs a bound of pyro_dgm.infer, or an ELBO of Pyro's that "
                f"has differentiable_loss, such as Trace_ELBO. RenyiELBO and TraceGraph_ELBO have none: IWAE and ELBO "
                f"of pyro_dgm.infer stand for them."
            )
        if backend not in get_args(Backend):
            raise ValueError(f"compiled got backend={backend!r}: it must be one of {get_args(Backend)}.")
        self.bound: Any = bound  # of this package or of Pyro
        self.backend = backend
        self._programs: dict[Any, Captured] = {}

    def capture(self, function: Callable[..., Any], *programs: Program) -> Captured:
        """Capture a function of data that uses this bound, a model and a guide, such as an objective's forward pass."""
        return Captured(
            function,
            name=f"{type(self.bound).__name__} of {' and '.join(map(_title, programs))}",
            modules=owners(*programs),
            objects=self._objects,
            backend=self.backend,
        )

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the bound's loss: a scalar whose gradient can be taken once."""
        return self._program(self._loss, model, guide)(*args, **kwargs)

    loss, loss_and_grads = Bound.loss, Bound.loss_and_grads  # they are read off `differentiable_loss`

    def per_datum(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the bound for every datum, shape ``(B,)``; compiled where gradients are off."""
        if torch.is_grad_enabled():
            return self.bound.per_datum(model, guide, *args, **kwargs)
        return self._program(self._per_datum, model, guide)(*args, **kwargs)

    def __call__(self, model: Program, guide: Program) -> BoundModule:
        """Fix a pair: the module's call gives `differentiable_loss`, its parameters are the pair's."""
        return BoundModule(model, guide, self)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the bound has
        if name == "bound":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.bound, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}  # a copy records for itself

    def _program(self, method: Callable[..., Any], model: Program, guide: Program) -> Captured:
        key = (method.__name__, model, guide)
        if key not in self._programs:

            def program(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                return method(model, guide, *args, **kwargs)

            self._programs[key] = self.capture(program, model, guide)
        return self._programs[key]

    def _loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with _reading_nothing(self.bound):
            return self.bound.differentiable_loss(model, guide, *args, **kwargs)

    def _per_datum(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        return self.bound.per_datum(model, guide, *args, **kwargs)

    def _objects(self) -> list[object]:
        control = getattr(self.bound, "kl", None)
        return [self.bound] if control is None else [self.bound, control]

    def _get_trace(self, *args: Any) -> Any:  # noqa: ANN401 -- Pyro's own
        return self.bound._get_trace(*args)


@contextmanager
def _reading_nothing(bound: pyro.infer.ELBO) -> Iterator[None]:
    """Have Pyro's own bounds look at no number while they are recorded: they do for the loss, and to warn of NaN."""
    modules = {sys.modules[kind.__module__] for kind in type(bound).__mro__}
    stand_ins = {"torch_item": _value, "warn_if_nan": lambda value, *_, **__: value}
    with ExitStack() as stack:
        if being_captured() and not isinstance(bound, Bound):
            for module in modules:
                for name in stand_ins.keys() & vars(module).keys():
                    stack.enter_context(patch.object(module, name, stand_ins[name]))
        yield


def _value(x: Any) -> Any:  # noqa: ANN401 -- a tensor or a number
    return x.detach() if isinstance(x, Tensor) else x


def _title(program: Program) -> str:
    owner = getattr(program, "__self__", program)
    name = getattr(program, "__name__", "")
    return f"{type(owner).__name__}.{name}" if isinstance(owner, nn.Module) and name else name or type(program).__name__


def compiled(bound: pyro.infer.ELBO, *, backend: Backend = "inductor") -> Compiled:
    r"""Make a bound cost no more than the same arithmetic written by hand and compiled.

    The first call records model, guide and bound as one graph of tensor operations, gradients included, in which there
    is neither Pyro nor Python, and compiles it; later calls run that. Values and gradients are those of the bound
    itself, from the same random numbers: noise differs from step to step and is set by a seed, as without.

    What may change from step to step: weights, buffers (running averages, codebooks), ``beta`` and capacity, which are
    tensors; subsamples of plates; noise. What a recording is made for, so that a change of it makes another, in some
    seconds: shapes and types of the data, device, training or evaluation, autocast, which weights are trained, and
    Python's numbers in model, guide and bound. Python code that has other effects has them when it is recorded only;
    Pyro checks distributions and shapes then, too, and not afterwards.

    Each recording is tried at once against the program itself, from the same noise. A program that cannot be captured,
    as it looks at numbers (a loop until something has converged; a plate whose size is drawn), or gives something else
    then, runs as it always did, with one warning that says at which site and in which line.

    The gradient of a value can be taken once (no ``retain_graph``, no second derivatives).

    Args:
        bound: A bound of `pyro_dgm.infer`, or an ELBO of Pyro's that has ``differentiable_loss``, as Trace_ELBO.
        backend: ``"inductor"`` compiles kernels, for which a CPU needs a C++ compiler; without one, or with
            ``"graph"``, the recorded operations run one by one, which saves Pyro's time and not torch's.

    Returns:
        A bound for `pyro.infer.SVI`, `Objective`, or ``compiled(bound)(model, guide)``.

    Raises:
        TypeError: If it is no such bound.
        ValueError: If it is compiled already, or the backend is unknown.

    >>> from pyro_dgm.infer import ELBO
    >>> from pyro_dgm.models import VAE
    >>> vae, x = VAE(shape=(4,), levels=2, latent=2), torch.ones(3, 4, dtype=torch.uint8)
    >>> loss = compiled(ELBO(), backend="graph")(vae.model, vae.guide)
    >>> loss(x).backward()
    """
    return Compiled(bound, backend=backend)
