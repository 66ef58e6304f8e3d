# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a recorded program depends on beside its arguments, and whether that is still as it was."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import pyro
from torch import Tensor, nn

NUMBERS = (bool, int, float, str)
LONG = 64
"""Lists of more numbers than this are not compared: such are orders and masks, which nobody changes."""

Look = tuple[Callable[[str], Any], str]
"""How to look a tensor up, and its name there."""


class Surroundings:
    """The tensors that a program finds, where it finds them, and Python's numbers in the objects that it uses.

    Tensors are looked up anew for each run, so that a weight that was replaced, moved or loaded is the one that counts.
    Numbers, and which parts there are, are constants of a recording: where one of them has changed, the program has to
    be recorded anew.

    Args:
        tensors: The tensors that the program found.
        modules: The modules that it is made of, or called.
        objects: Other objects that it uses: the bound, and its control of the KL.
    """

    def __init__(self, tensors: Sequence[Tensor], modules: Iterable[nn.Module], objects: Iterable[object]) -> None:
        everything = [*{part: None for module in modules for part in module.modules()}, *objects]
        places = {id(tensor): look for tensor, look in _places(everything)}
        nowhere = {str(index): tensor for index, tensor in enumerate(tensors)}  # in a closure, say: it stays there
        self.looks: list[Look] = [
            places.get(id(tensor), (nowhere.get, str(index))) for index, tensor in enumerate(tensors)
        ]
        self.known = list(tensors)
        self.kinds = [_kind(tensor) for tensor in tensors]
        self.fixed = [_Fixed.of(part) for part in everything]

    def tensors(self) -> list[Tensor] | None:
        """Look the tensors up; ``None`` if one is no longer there, or of another shape, type or device."""
        found = [get(name) for get, name in self.looks]
        for index, (tensor, kind) in enumerate(zip(found, self.kinds, strict=True)):
            if tensor is self.known[index]:
                if tensor.dtype != kind.dtype or tensor.requires_grad != kind.grad or tensor.device != kind.device:
                    return None
            elif not isinstance(tensor, Tensor) or _kind(tensor) != kind:
                return None
            else:
                self.known[index] = tensor
        return found

    def changed(self) -> str | None:
        """Name a number or a part that is no longer what it was; ``None`` if all are."""
        for fixed in self.fixed:
            if not fixed.holds():
                return fixed.changed()
        return None


class _Kind(NamedTuple):
    dtype: Any
    grad: bool
    device: Any
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _kind(tensor: Tensor) -> _Kind:
    return _Kind(tensor.dtype, tensor.requires_grad, tensor.device, tensor.shape, tensor.stride())


def _places(parts: Iterable[object]) -> Iterator[tuple[Tensor, Look]]:
    """List all tensors that parts and Pyro's parameter store hold, and how to look each up later."""
    store = pyro.get_param_store()
    for name, tensor in store.named_parameters():
        yield tensor, (lambda wanted: store._params.get(wanted), name)
    for part in parts:
        held = [vars(part)]
        held += [part._parameters, part._buffers] if isinstance(part, nn.Module) else []
        for mapping in held:
            for name, value in mapping.items():
                if isinstance(value, Tensor):
                    yield value, (mapping.get, name)


class _Fixed(NamedTuple):
    """The numbers of an object by which a recording was made."""

    part: object
    names: tuple[str, ...]
    get: Callable[[dict[str, Any]], Any]
    values: Any
    children: list[Any]

    @classmethod
    def of(cls, part: object) -> "_Fixed":
        """Copy the numbers of an object; of one that is no module, also which other objects it has."""
        kept = {name: copy for name, value in vars(part).items() if (copy := _copy(value)) is not None}
        get = itemgetter(*kept) if kept else lambda _: None
        return cls(part, tuple(kept), get, get(kept) if kept else None, cls.others(part))

    @staticmethod
    def others(part: object) -> list[Any]:
        """List what it is made of: modules, and a bound's control of the KL."""
        if isinstance(part, nn.Module):
            return list(part._modules.values())
        return [value for name, value in vars(part).items() if name == "kl"]

    def holds(self) -> bool:
        """Whether the object is as it was."""
        try:
            return self.get(vars(self.part)) == self.values and self.others(self.part) == self.children
        except KeyError:
            return False

    def changed(self) -> str:
        """Name what is not as it was."""
        now, name = vars(self.part), type(self.part).__name__
        values = (self.values,) if len(self.names) == 1 else self.values
        for key, value in zip(self.names, values or (), strict=False):
            if key not in now or now[key] != value:
                return f"{name}.{key}"
        return f"what {name} is made of"


def _copy(value: Any) -> Any:  # noqa: ANN401 -- whatever an attribute may be
    """Copy a number, or a short list, tuple or dictionary of numbers; ``None`` for anything else."""
    if isinstance(value, NUMBERS):
        return value
    if type(value) in (list, tuple) and len(value) <= LONG and all(isinstance(part, NUMBERS) for part in value):
        return type(value)(value)
    if type(value) is dict and 0 < len(value) <= LONG and all(isinstance(part, NUMBERS) for part in value.values()):
        return dict(value)
    return None
