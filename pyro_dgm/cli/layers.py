# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Lay configurations over one another: defaults, then YAML files, then the words that were typed.

A class is ``{class_path, init_args}``, as jsonargparse writes it, or only its name. jsonargparse could read dotted
words itself, but its reading of ``--model.encoder GatedMLP`` keeps every option of the *previous* class that the new
one also has: a ``GatedMLP`` would silently get the hidden sizes of the default ``MLP``. Here a new class starts from
its own defaults.
"""

from collections.abc import Iterable
from typing import Any

Tree = dict[str, Any]
GROUPS = frozenset({"trainer"})
"""Keys whose options are a plain mapping, not the options of a class that can be exchanged."""


def tree(options: Iterable[tuple[str, str]]) -> Tree:
    """Nest dotted options. Values stay text: the type in the constructor's signature decides what they mean.

    Short keys come first, so that ``--model.latent 20 --model VAE`` is ``--model VAE --model.latent 20``.

    >>> tree([("model", "VAE"), ("model.encoder.hidden", "[5]")])
    {'model': {'class_path': 'VAE', 'init_args': {'encoder': {'init_args': {'hidden': '[5]'}}}}}
    """
    result: Tree = {}
    for key, value in sorted(options, key=lambda option: option[0].count(".")):
        result = merge(result, _nest([part for part in key.split(".") if part != "init_args"], value))
    return result


def merge(base: Tree, over: Tree) -> Tree:
    """Lay one configuration over another; a class that changes drops the options of the old one.

    >>> merge({"model": {"class_path": "A", "init_args": {"latent": 2}}}, {"model": "B"})
    {'model': 'B'}
    >>> merge({"model": "A"}, {"model": {"init_args": {"latent": 3}}})
    {'model': {'class_path': 'A', 'init_args': {'latent': 3}}}
    """
    both = base.keys() & over.keys()
    return base | over | {key: _merge_value(base[key], over[key]) for key in over if key in both}


def is_spec(value: object) -> bool:
    """Whether a value names a class: ``{class_path, init_args}`` or a part of it."""
    return isinstance(value, dict) and bool(value) and value.keys() <= {"class_path", "init_args"}


def _nest(parts: list[str], value: str) -> Tree:
    head, *rest = parts
    if not rest or rest == ["class_path"]:
        return {head: value}
    inner = _nest(rest, value)
    return {head: inner if head in GROUPS else {"init_args": inner}}


def _merge_value(base: Any, over: Any) -> Any:  # noqa: ANN401 -- any leaf of YAML
    if is_spec(base) and isinstance(over, str):
        return base if _same(base.get("class_path"), over) else over
    if is_spec(over) and isinstance(base, str):
        base = {"class_path": base}
    if is_spec(base) and is_spec(over):
        return _merge_spec(base, over)
    if isinstance(base, dict) and isinstance(over, dict) and not is_spec(base) and not is_spec(over):
        return merge(base, over)
    return over


def _merge_spec(base: Tree, over: Tree) -> Tree:
    if "class_path" in over and not _same(base.get("class_path"), over["class_path"]):
        return over
    options = merge(base.get("init_args") or {}, over.get("init_args") or {})
    return base | ({"init_args": options} if options else {})


def _same(one: str | None, other: str) -> bool:
    """Whether two names mean one class, where either may be short (``VAE``) or an import path."""
    if one is None or one == other:
        return one is not None
    return ("." not in one or "." not in other) and one.rpartition(".")[2] == other.rpartition(".")[2]
