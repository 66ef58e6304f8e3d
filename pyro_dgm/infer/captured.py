# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A program that is recorded when it is called first, and from then on runs without Pyro and Python."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.poutine.runtime import _PYRO_STACK, am_i_wrapped
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_dgm.infer.agreement import Effects, disagreement
from pyro_dgm.infer.recorded_run import Backend, RecordedRun
from pyro_dgm.infer.recording import record
from pyro_dgm.infer.surroundings import NUMBERS, Surroundings
from pyro_dgm.infer.why_not import why_not
from pyro_dgm.transforms.one_pass import under_functorch

MOST = 32
"""Recordings of one program before it is given up: each costs seconds, and so many mean that none is used twice."""


class Captured:
    """Call a program through recordings of it: one for each kind of arguments and state of its surroundings.

    Args:
        function: The program. It gives any nest of tensors, of which at most one, a scalar, has a gradient.
        name: What to call it in messages.
        modules: The modules that it uses; what changes in them is noticed.
        objects: Gives the other objects that it uses, as they are now.
        backend: ``"inductor"`` compiles the recorded graph; ``"graph"`` runs it operation by operation.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        modules: Iterable[nn.Module] = (),
        objects: Callable[[], Iterable[object]] = tuple,
        backend: Backend = "inductor",
    ) -> None:
        self.function, self.name, self.backend = function, name, backend
        self.modules, self.objects = list(modules), objects
        self.recorded = 0
        self.last: RecordedRun | None = None  # which recording the last call ran
        self._runs: dict[Any, list[RecordedRun]] = {}
        self._uncaptured: set[Any] = set()  # kinds of calls
        self._said: set[str] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- what the program takes and gives
        """Run the program."""
        arguments, spec = tree_flatten((args, kwargs))
        key = _key(arguments, spec)
        self.last = None
        if key is None or key in self._uncaptured:
            if key is None and (kind := _foreign(arguments)) is not None:
                return self._give_up(None, args, kwargs, f"it has an argument of type {kind}, which may change unseen")
            return self.function(*args, **kwargs)
        for run in reversed(self._runs.get(key, ())):  # the newest first
            if (inputs := run.inputs(arguments)) is not None:
                self.last = run
                return run(inputs)
        return self._capture(key, arguments, spec)

    def _capture(self, key: Any, arguments: list[Any], spec: TreeSpec) -> Any:  # noqa: ANN401
        """Record the program and run it once each way; from then on trust the recording, or never again."""
        args, kwargs = tree_unflatten(arguments, spec)
        if self.recorded >= MOST:
            return self._give_up(key, args, kwargs, self._what_changes(key))
        self._rehearse(args, kwargs)
        try:
            run = self._record(arguments, spec)
        except Exception as error:  # whatever a program may do that a recording cannot
            return self._give_up(key, args, kwargs, why_not(error))
        self.recorded += 1
        return self._try(run, key, arguments, args, kwargs)

    def _record(self, arguments: list[Any], spec: TreeSpec) -> RecordedRun:
        """Record and compile the program; where kernels cannot be compiled, only record it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the program came before; those of the compiler help nobody
            recording = record(self.function, arguments, spec)
            surroundings = Surroundings(recording.free, [*self.modules, *recording.modules], self.objects())
            try:
                return RecordedRun(recording, surroundings, arguments, backend=self.backend)
            except Exception as error:
                if self.backend == "graph":
                    raise
                self.backend, why = "graph", error
            run = RecordedRun(recording, surroundings, arguments, backend=self.backend)
        warnings.warn(
            f"{self.name} is recorded and not compiled, so that its operations run one by one: {why_not(why)}. "
            f"A CPU needs a C++ compiler (g++ or clang++) for its kernels.",
            stacklevel=5,
        )
        return run

    def _rehearse(self, args: Any, kwargs: Any) -> None:  # noqa: ANN401
        """Run the program once for what it does at its first call only: it makes parameters, starts layers by data.

        What is drawn, and what is averaged over batches, is put back; flags of what has begun stay.
        """
        buffers = [buffer for module in self.modules for buffer in module.buffers() if buffer.dtype != torch.bool]
        parameters = [parameter for module in self.modules for parameter in module.parameters()]
        effects = Effects({id(buffer): buffer for buffer in buffers}.values(), drawing=[*parameters, *buffers])
        with torch.no_grad():
            self.function(*args, **kwargs)
        effects.undo()

    def _try(self, run: RecordedRun, key: Any, arguments: list[Any], args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Run it compiled, then as it is from the same noise, and compare."""
        inputs = run.inputs(arguments)
        if inputs is None:
            return self._give_up(key, args, kwargs, "it changes what it depends on each time it runs")
        learned = set(run.recording.learned)
        effects = Effects([t for i, t in enumerate(inputs) if i not in learned], drawing=inputs)
        try:
            values, slopes = run.raw(inputs)
        except Exception as error:  # e.g. a kernel that a device does not have
            effects.undo()
            return self._give_up(key, args, kwargs, why_not(error))
        after = Effects(effects.tensors, drawing=inputs)
        effects.undo()
        result = self.function(*args, **kwargs)
        wanted = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
        wanted_slopes = run.slopes_of(wanted, inputs)
        off = disagreement(values, slopes, wanted, wanted_slopes)
        if off is not None:
            self._say(key, f"compiled, {off} from the same noise; does it draw outside of torch's generators?")
            return result
        after.undo()
        self._runs.setdefault(key, []).append(run)
        return run.give(values, slopes, inputs)

    def _give_up(self, key: Any, args: Any, kwargs: Any, why: str) -> Any:  # noqa: ANN401
        result = self.function(*args, **kwargs)  # first, as an error of its own needs no more words
        self._say(key, why)
        return result

    def _say(self, key: Any, why: str) -> None:  # noqa: ANN401
        self._uncaptured.add(key)
        if why not in self._said:
            self._said.add(why)
            warnings.warn(f"{self.name} is not captured and runs as usual: {why}.", stacklevel=5)

    def _what_changes(self, key: Any) -> str:  # noqa: ANN401
        runs = self._runs.get(key, ())
        changed = next((name for run in reversed(runs) if (name := run.surroundings.changed())), None)
        cause = f"{changed} changes" if changed else "shapes or types of its arguments change"
        return f"it was recorded {self.recorded} times, as {cause} again and again; a tensor may change, a number not"

    def __getstate__(self) -> dict[str, Any]:
        forgotten = {"_runs": {}, "_uncaptured": set(), "recorded": 0, "last": None}  # a copy records for itself
        return {**self.__dict__, **forgotten}


SIMPLE = (*NUMBERS, torch.dtype, torch.device, type(None))


def _foreign(arguments: list[Any]) -> str | None:
    """Name the type of an argument that is neither a tensor nor a number."""
    return next((type(part).__name__ for part in arguments if not isinstance(part, (Tensor, *SIMPLE))), None)


def _key(arguments: list[Any], spec: TreeSpec) -> Any:  # noqa: ANN401 -- hashable
    """Say what kind of call it is; ``None`` if no call of that kind can be captured."""
    if am_i_wrapped() and not all(getattr(handler, "param_only", False) for handler in _PYRO_STACK):
        return None  # handlers from outside want to see the sites
    if under_functorch():
        return None
    kinds: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            kinds.append((argument.shape, argument.stride(), argument.dtype, argument.device, argument.requires_grad))
        elif isinstance(argument, SIMPLE):
            kinds.append((type(argument), argument))
        else:
            return None
    return (*kinds, spec, *_modes())


def _modes() -> tuple[Any, ...]:
    """List what changes the meaning of operations, or how they are compiled."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        *(torch.is_autocast_enabled(d) and torch.get_autocast_dtype(d) for d in ("cpu", "cuda")),
    )
