# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Turns nested Python state into JSON and a flat dictionary of tensors, and back without losing a bit.

Reading runs no code: unlike a pickle, such a file can only give numbers, strings, containers and tensors.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

KIND = "__kind__"  # marks a JSON object that stands for something JSON does not have


def pack(state: Any) -> tuple[str, dict[str, Tensor]]:
    """Split state into JSON text and tensors.

    Args:
        state: None, booleans, integers, floats (NaN and infinities too), strings, tensors, and lists, tuples, dicts
            and Counters of such; keys of any of these kinds but tensors.

    Returns:
        The text, and the tensors that it refers to by name.

    Raises:
        TypeError: If there is something else in it; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    return json.dumps(_encode(state, "state", tensors), allow_nan=False), tensors


def unpack(text: str, tensors: Mapping[str, Tensor]) -> Any:
    """Put back together what `pack` took apart.

    >>> unpack(*pack({0: (1, 0.1), "x": [None, True]}))
    {0: (1, 0.1), 'x': [None, True]}

    Args:
        text: JSON from `pack`.
        tensors: Tensors from `pack`.

    Returns:
        The state: equal to the one packed, types included.

    Raises:
        KeyError: If a tensor is missing.
        ValueError: If the text is not JSON, or of an unknown kind.
    """
    return _decode(json.loads(text), tensors)


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}.{path}"  # the number keeps names apart whatever the keys are
        tensors[name] = value
        return {KIND: "tensor", "name": name}
    if isinstance(value, float):  # numpy's float64 is one too
        return float(value) if math.isfinite(value) else {KIND: "float", "value": repr(float(value))}
    if isinstance(value, list):
        return [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {KIND: "tuple", "items": [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict):
        return _encode_dict(value, path, tensors)
    raise TypeError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot hold: state_dict "
        f"must be made of numbers, strings, None, tensors, and lists, tuples and dicts of them."
    )


def _encode_dict(value: dict[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    items = {key: _encode(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if not isinstance(value, Counter) and all(type(key) is str for key in items) and KIND not in items:
        return items
    kind = "counter" if isinstance(value, Counter) else "dict"
    return {KIND: kind, "items": [[_encode(key, f"{path}.key", tensors), item] for key, item in items.items()]}


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(KIND):
        case None:
            return {key: _decode(item, tensors) for key, item in value.items()}
        case "tensor":
            return tensors[value["name"]]
        case "float":
            return float(value["value"])
        case "tuple":
            return tuple(_decode(item, tensors) for item in value["items"])
        case "dict":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in value["items"]}
        case "counter":
            return Counter({_decode(key, tensors): _decode(item, tensors) for key, item in value["items"]})
        case kind:
            raise ValueError(f"A checkpoint holds data of the unknown kind {kind!r}.")
