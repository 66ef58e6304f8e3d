# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Record a Pyro program as a graph of tensor operations, gradients included, from which Pyro and Python are gone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pyro_dgm.nn.being_captured import capturing
from pyro_dgm.nn.without_autocast import without_autocast


class NotCapturable(RuntimeError):
    """A program is no fixed graph of tensor operations; the message says what in it is not."""


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
    from torch._subclasses.fake_tensor import is_fake
    from torch.fx.experimental.proxy_tensor import make_fx  # here, as it takes long to import

    given = [argument for argument in arguments if isinstance(argument, Tensor)]
    found: dict[str, Any] = {}

    def traced(*tensors: Tensor) -> list[Tensor]:
        inputs = [
            tensor.detach().requires_grad_() if argument.requires_grad else tensor
            for tensor, argument in zip(tensors, given, strict=True)
        ]
        turn = iter(inputs)
        flat = [next(turn) if isinstance(argument, Tensor) else argument for argument in arguments]
        args, kwargs = tree_unflatten(flat, spec)
        found["values"], found["spec"] = tree_flatten(function(*args, **kwargs))
        outputs = [value for value in found["values"] if isinstance(value, Tensor)]
        found["loss"], leaves = _leaves(outputs)
        # A leaf without numbers that did not come in was made on the way: a sample that a gradient goes around.
        placed = [(leaf, _place(leaf, inputs)) for leaf in leaves]
        found["leaves"] = [(leaf, at) for leaf, at in placed if at is not None or not is_fake(leaf)]
        return [output.detach() for output in outputs] + _slopes(outputs, found)

    with _recorded_alone() as (statements, modules):
        graph = make_fx(traced, tracing_mode="fake", _allow_non_fake_inputs=True)(*given)
    if not any(isinstance(value, Tensor) for value in found["values"]):
        raise NotCapturable("it gives no tensor")
    _require_static(graph)
    free = _lift(graph, [leaf for leaf, at in found["leaves"] if at is None])
    place = {id(tensor): index for index, tensor in enumerate(free)}
    return Recording(
        graph,
        tuple(free),
        tuple(None if isinstance(value, Tensor) else value for value in found["values"]),
        found["spec"],
        found["loss"] if found["leaves"] else None,
        tuple(place[id(leaf)] if at is None else len(free) + at for leaf, at in found["leaves"]),
        tuple(statements),
        tuple(modules),
    )


@contextmanager
def _recorded_alone() -> Iterator[tuple[dict[str, None], dict[nn.Module, None]]]:
    """Hide a program from the handlers around it and from Pyro's checks, and list its statements and modules."""
    statements: dict[str, None] = {}
    modules: dict[nn.Module, None] = {}

    def meet(site: Any) -> bool:  # noqa: ANN401 -- Pyro's messages
        if site["type"] == "param":
            statements[site["name"]] = None
        return True

    hook = register_module_forward_pre_hook(lambda module, _: modules.setdefault(module))  # type: ignore[func-returns-value]
    with ExitStack() as stack:
        stack.callback(hook.remove)
        stack.enter_context(pyro.validation_enabled(is_validate=False))
        stack.enter_context(poutine.block(hide_fn=meet))
        stack.enter_context(_without_autocast_cache())
        stack.enter_context(capturing())
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


def _slopes(outputs: list[Tensor], found: dict[str, Any]) -> list[Tensor]:
    """Differentiate the loss to what was found, in the precision that a backward pass outside would have."""
    wanted = [leaf for leaf, _ in found["leaves"]]
    if not wanted:
        return []
    loss = outputs[found["loss"]]
    with without_autocast(loss):
        return list(torch.autograd.grad(loss, wanted))


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
    """Refuse graphs that read numbers on the host, or whose shapes depend on numbers."""
    for node in graph.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target is torch.ops.aten._local_scalar_dense.default:
            raise NotCapturable("it reads a number out of a tensor (.item(), float(...), int(...))")
        given = node.meta.get("val")
        if isinstance(given, Tensor) and any(isinstance(size, torch.SymInt) for size in given.shape):
            raise NotCapturable(f"the shape of what {node.target} gives depends on numbers")


def _lift(module: GraphModule, leaves: list[Tensor]) -> list[Tensor]:
    """Turn the leaves and all tensors that a graph holds on to into its first inputs; give them, each once."""
    _move_literals(module)
    graph = module.graph
    first = next(iter(graph.nodes))
    inputs: dict[int, tuple[Node, Tensor]] = {}

    def place(value: Tensor) -> Node:
        if id(value) not in inputs:
            with graph.inserting_before(first):
                inputs[id(value)] = graph.placeholder(f"free_{len(inputs)}"), value
        return inputs[id(value)][0]

    for leaf in leaves:
        place(leaf)
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        value = getattr(module, node.target)
        if not isinstance(value, Tensor):
            raise NotCapturable(f"it holds a {type(value).__name__} that is no tensor")
        if all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users):
            continue  # made of Python's numbers: a constant
        node.replace_all_uses_with(place(value))
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()
    return [value for _, value in inputs.values()]


def _move_literals(module: GraphModule) -> None:
    """Send tensors that are made of Python's numbers to their device once, for all runs."""
    aten, graph = torch.ops.aten, module.graph
    for node in list(graph.nodes):
        source = node.args[0] if node.target is aten._to_copy.default else None
        if not isinstance(source, Node) or source.target is not aten.lift_fresh_copy.default:
            continue
        origin = source.args[0]
        if node.kwargs.get("device") in (None, torch.device("cpu")) or _written_to(node):
            continue
        name = f"moved_{origin.target}_{node.name}"  # type: ignore[union-attr]
        setattr(module, name, aten._to_copy.default(getattr(module, origin.target), **node.kwargs))  # type: ignore[union-attr]
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)


def _written_to(node: Node) -> bool:
    return any(isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable for user in node.users)
