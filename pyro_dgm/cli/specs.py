# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Complete the description of a class: find it, check its options' names, fill in its own defaults."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from pyro_dgm.cli.errors import UsageError, nearest
from pyro_dgm.cli.layers import Tree, is_spec
from pyro_dgm.cli.names import PARTS, find, path_of

PLAIN = (str, bytes, bool, int, float, complex, list, tuple, dict, set, frozenset, type(None), PurePath, Enum)


class Role(NamedTuple):
    """What a parameter takes: a plain value, a class (``type[X]``), or something made from a class.

    ``taken`` is how many of the class's first parameters are not options, because whoever calls the factory gives
    them: 2 for ``Callable[[Shape, Shape], nn.Module]``. ``given`` names others that are not: ``context_dim`` of flows.
    """

    kind: Literal["value", "class", "factory"]
    taken: int = 0
    given: frozenset[str] = frozenset()


VALUE = Role("value")
CONTEXT = frozenset({"context_dim"})
"""What whoever makes a flow gives it, if it is to have a context."""


def complete(
    value: object, rooms: Sequence[str], *, option: str, linked: frozenset[str] = frozenset(), taken: int = 0
) -> Tree:
    """Write a class in full: import path and every option, those that were not given with their defaults.

    Args:
        value: A name, or ``{class_path, init_args}``.
        rooms: Modules whose classes go by their short names.
        option: The option that it came from, for error messages.
        linked: Parameters that are set from elsewhere (``shape`` and ``levels`` of the data, a flow's ``context_dim``).
        taken: How many of the first parameters are not options.

    Raises:
        UsageError: If the class or one of its options is unknown, with the nearest that is.
    """
    if isinstance(value, str):
        value = {"class_path": value}
    if not isinstance(value, dict) or not is_spec(value) or not isinstance(value.get("class_path"), str):
        raise UsageError(f"--{option} got {value!r}: it needs the name of a class, or class_path and init_args.")
    cls = find(value["class_path"], rooms, option=option)
    given = {k: v for k, v in (value.get("init_args") or {}).items() if not (k in linked & CONTEXT and v is None)}
    parameters = dict(list(signature(cls).items())[taken:])
    _check_names(cls, parameters, given, linked, option=option)
    kinds = roles(cls)
    filled: Tree = {}
    for name, parameter in parameters.items():
        role, inner = kinds.get(name, VALUE), f"{option}.{name}"
        if name in given:
            filled[name] = _complete_value(given.pop(name), parameter.default, role, inner)
        elif name not in linked and parameter.default is not parameter.empty:
            filled[name] = _default(parameter.default, role, inner)
    return {"class_path": path_of(cls), "init_args": {key: v for key, v in (filled | given).items() if v is not ...}}


def signature(cls: type) -> dict[str, inspect.Parameter]:
    """A constructor's parameters by name."""
    try:
        return dict(inspect.signature(cls).parameters)
    except ValueError as error:
        raise UsageError(f"{cls.__name__} has no signature to read options from: {error}.") from error


def _check_names(
    cls: type, parameters: dict[str, inspect.Parameter], given: Tree, linked: frozenset[str], *, option: str
) -> None:
    """Refuse an option that the constructor does not have; with ``**kwargs`` jsonargparse looks further."""
    if both := linked & given.keys():
        giver = "whatever makes the flow" if min(both) in CONTEXT else "the description of the data"
        raise UsageError(f"--{option}.{min(both)} cannot be set: it comes from {giver}.")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            known = [key for key in parameters if key not in linked]
            hint = nearest(name, known, prefix=f"--{option}.")
            has = ", ".join(known) or "no options"
            raise UsageError(f"unknown option --{option}.{name}.{hint} {cls.__name__} has: {has}.")


def _complete_value(value: object, default: object, role: Role, option: str) -> object:
    """A given value; one that names a class is written in full. Only options: those of the default class."""
    if role.kind == "value" or value is None or value == "null":
        return value
    if role.kind == "class":
        return path_of(find(value, PARTS, option=option)) if isinstance(value, str) else value
    if isinstance(value, dict) and is_spec(value) and "class_path" not in value and inspect.isclass(default):
        value = {"class_path": path_of(default)} | value
    return complete(value, PARTS, option=option, linked=role.given, taken=role.taken)


def _default(default: object, role: Role, option: str) -> object:
    """A default as YAML has it, or ``...`` where YAML has no word for it and jsonargparse must find its own."""
    if inspect.isclass(default):
        return path_of(default) if role.kind == "class" else _complete_value(path_of(default), default, role, option)
    if isinstance(default, (tuple, list)):
        return list(default)
    return default if isinstance(default, PLAIN) and not isinstance(default, (Enum, PurePath)) else ...


def roles(cls: type) -> dict[str, Role]:
    """What each parameter of a constructor takes, as its annotation says."""
    try:
        hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # a name that only exists for a type checker: jsonargparse reports it
        return {}
    return {name: _role(hint) for name, hint in hints.items()}


def _role(hint: Any) -> Role:  # noqa: ANN401 -- any annotation
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # float | Tensor is a value; Callable[...] | None is a factory
        kinds = {_role(part) for part in parts if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else VALUE
    if origin is type:
        return Role("class")
    if origin is collections.abc.Callable:
        given = CONTEXT if inspect.isclass(parts[1]) and issubclass(parts[1], _flows()) else frozenset()
        return Role("factory", len(parts[0]) if isinstance(parts[0], list) else 0, given)
    is_object = inspect.isclass(hint) and origin is None and not issubclass(hint, PLAIN)
    return Role("factory") if is_object else VALUE


def _flows() -> type:
    from pyro_dgm.transforms import FlowTransform

    return FlowTransform
