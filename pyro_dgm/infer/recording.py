# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Record a Pyro program as a graph of tensor operations, gradients included, from which Pyro and Python are gone."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_dgm.infer.hands_off import HandsOff, NotCapturable
from pyro_dgm.infer.lift import lift
from pyro_dgm.nn.being_captured import capturing
from pyro_dgm.nn.without_autocast import without_autocast

AFTER = "after the sample site"


@dataclass(frozen=True)
class Recording:
    """A program as a graph: a pure function of the tensors that it was given and those that it found elsewhere.

    Attributes:
        graph: Takes the tensors of ``free``, then those among the arguments; gives the ``values``, then gradients.
        free: Tensors that the program took from somewhere else: parameters, buffers, the bound's beta.
        values: What the program gave, flat: for a tensor ``None``, for anything else itself.
        spec: How the flat values are put together again.
        loss: Which of the graph's values has a gradient; ``None`` if none has.
        learned: The places, among all inputs of the graph, of the tensors that the gradients belong to.
        statements: Names of the parameter statements (`pyro.param`) that were met.
        modules: Modules that were called.
    """

    graph: GraphModule
    free: tuple[Tensor, ...]
    values: tuple[Any, ...]
    spec: TreeSpec
    loss: int | None
    learned: tuple[int, ...]
    statements: tuple[str, ...]
    modules: tuple[nn.Module, ...]

    def assemble(self, tensors: list[Tensor]) -> Any:  # noqa: ANN401 -- whatever the program gives
        """Put values together as the program did, with these tensors in the places of its own."""
        turn = iter(tensors)
        return tree_unflatten([next(turn) if value is None else value for value in self.values], self.spec)


def record(function: Callable[..., Any], arguments: list[Any], spec: TreeSpec) -> Recording:
    """Record one call of a program, without numbers: nothing is drawn, and no tensor is written to.

    Args:
        function: Gives any nest of tensors, of which at most one, a scalar, has a gradient.
        arguments: Its arguments, flat.
        spec: How they are put together to ``(args, kwargs)``.

    Returns:
        The graph, with a gradient for every leaf that the scalar depends on, if gradients are enabled.

    Raises:
        NotCapturable: If it gives more than one value with a gradient, or asks for the numbers in a tensor.
        Exception: What the program itself raises where it asks for numbers that are not there.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # here, as it takes long to import

    given = [argument for argument in arguments if isinstance(argument, Tensor)]
    call, guard, last = _Call(function, arguments, spec), HandsOff(), deque[str](maxlen=1)

    def traced(*tensors: Tensor) -> list[Tensor]:
        with capturing(), guard:
            return call(*tensors)

    try:
        with _recorded_alone(last) as (statements, modules):
            graph = make_fx(traced, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
    except Exception as error:
        if last:
            error.add_note(f"{AFTER} {last[-1]!r}")
        raise
    finally:
        guard.take_back()
    if not any(isinstance(value, Tensor) for value in call.values):
        raise NotCapturable("it gives no tensor")
    _require_static(graph)
    free = lift(graph, [leaf for leaf, at in call.leaves if at is None])
    place = {id(tensor): index for index, tensor in enumerate(free)}
    return Recording(
        graph,
        tuple(free),
        tuple(None if isinstance(value, Tensor) else value for value in call.values),
        call.result,
        call.loss if call.leaves else None,
        tuple(place[id(leaf)] if at is None else len(free) + at for leaf, at in call.leaves),
        tuple(statements),
        tuple(modules),
    )


class _Call:
    """A call of a program on tensors without numbers, and what became known by it."""

    def __init__(self, function: Callable[..., Any], arguments: list[Any], spec: TreeSpec) -> None:
        self.function, self.arguments, self.spec = function, arguments, spec
        self.values: list[Any] = []
        self.result: Any = None  # how the values are put together
        self.loss: int | None = None
        self.leaves: list[tuple[Tensor, int | None]] = []  # with the place of each that is an argument

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Give the tensors among the values, then the gradients."""
        from torch._subclasses.fake_tensor import is_fake

        given = iter(argument for argument in self.arguments if isinstance(argument, Tensor))
        inputs = [tensor.detach().requires_grad_() if next(given).requires_grad else tensor for tensor in tensors]
        turn = iter(inputs)
        flat = [next(turn) if isinstance(argument, Tensor) else argument for argument in self.arguments]
        args, kwargs = tree_unflatten(flat, self.spec)
        self.values, self.result = tree_flatten(self.function(*args, **kwargs))
        outputs = [value for value in self.values if isinstance(value, Tensor)]
        self.loss, leaves = _leaves(outputs)
        # A leaf without numbers that did not come in was made on the way: a sample that a gradient goes around.
        placed = [(leaf, _place(leaf, inputs)) for leaf in leaves]
        self.leaves = [(leaf, at) for leaf, at in placed if at is not None or not is_fake(leaf)]
        if self.loss is None or not self.leaves:
            return [output.detach() for output in outputs]
        loss = outputs[self.loss]
        with without_autocast(loss):  # who calls backward does so outside of it
            slopes = torch.autograd.grad(loss, [leaf for leaf, _ in self.leaves])
        return [*(output.detach() for output in outputs), *slopes]


@contextmanager
def _recorded_alone(last: deque[str]) -> Iterator[tuple[dict[str, None], dict[nn.Module, None]]]:
    """Hide a program from the handlers around it and from Pyro's checks, and list its statements and modules."""
    statements: dict[str, None] = {}
    modules: dict[nn.Module, None] = {}

    def meet(site: Any) -> bool:  # noqa: ANN401 -- Pyro's messages
        if site["type"] == "param":
            statements[site["name"]] = None
        elif site["type"] == "sample":
            last.append(site["name"])
        return True

    hook = register_module_forward_pre_hook(lambda module, _: modules.setdefault(module))
    with ExitStack() as stack:
        stack.callback(hook.remove)
        stack.enter_context(pyro.validation_enabled(is_validate=False))
        stack.enter_context(poutine.block(hide_fn=meet))
        stack.enter_context(_without_autocast_cache())
        yield statements, modules


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Have autocast cast a weight each time: what it remembered of a recording would have no numbers later."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _leaves(outputs: list[Tensor]) -> tuple[int | None, list[Tensor]]:
    """Find the output that has a gradient, and the tensors at which its graph ends."""
    grown = [index for index, output in enumerate(outputs) if output.requires_grad]
    if not grown or not torch.is_grad_enabled():
        return None, []
    if len(grown) > 1 or outputs[grown[0]].dim():
        shapes = [tuple(outputs[index].shape) for index in grown]
        raise NotCapturable(f"it gives values of shapes {shapes} with gradients, where one scalar may have one")
    leaves: dict[int, Tensor] = {}
    nodes = [outputs[grown[0]].grad_fn]
    seen = set(nodes)
    while nodes:
        node: Any = nodes.pop()
        if (variable := getattr(node, "variable", None)) is not None:
            leaves[id(variable)] = variable
        more = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= more
        nodes.extend(more)
    return grown[0], list(leaves.values())


def _place(leaf: Tensor, inputs: list[Tensor]) -> int | None:
    return next((index for index, tensor in enumerate(inputs) if tensor is leaf), None)


def _require_static(graph: GraphModule) -> None:
    """Refuse graphs whose shapes depend on numbers."""
    for node in graph.graph.nodes:
        given = node.meta.get("val")
        if isinstance(given, Tensor) and any(isinstance(size, torch.SymInt) for size in given.shape):
            raise NotCapturable(f"the shape of what {node.target} gives depends on numbers in a tensor")
