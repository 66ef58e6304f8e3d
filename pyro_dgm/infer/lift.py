# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Turn the tensors that a graph holds on to into inputs, so that it is a pure function of all that it depends on."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pyro_dgm.infer.hands_off import NotCapturable


def lift(module: GraphModule, leaves: Sequence[Tensor]) -> list[Tensor]:
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
        held, name = getattr(module, str(origin.target)), f"moved_{node.name}"  # type: ignore[union-attr]
        setattr(module, name, aten._to_copy.default(held, **node.kwargs))
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)


def _written_to(node: Node) -> bool:
    return any(isinstance(user.target, torch._ops.OpOverload) and user.target._schema.is_mutable for user in node.users)
