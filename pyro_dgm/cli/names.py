# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Find the class that a short name or an import path means; there is no registry, only the rooms' ``__all__``."""

import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pyro_dgm.cli.errors import UsageError, nearest

ROOMS: dict[str, tuple[str, ...]] = {
    "data": ("pyro_dgm.data",),
    "model": ("pyro_dgm.models",),
    "bound": ("pyro_dgm.infer",),
    "optimizer": ("torch.optim",),
    "scheduler": ("torch.optim.lr_scheduler",),
}
"""Where the short names of each option live."""

PARTS = ("pyro_dgm.nn", "pyro_dgm.distributions", "pyro_dgm.transforms", "pyro_dgm.infer", "torch.nn")
"""Where the short names of a class's own parts live (``--model.encoder``): the first room that has one wins."""


def find(name: str, rooms: Sequence[str], *, option: str) -> type:
    """The class that a name means.

    Args:
        name: A short name of one of ``rooms`` (``VAE``) or an import path (``my_package.MyVAE``).
        rooms: Modules to look a short name up in.
        option: The option that named it, for the error message.

    Raises:
        UsageError: If there is none, with the nearest that is.

    >>> find("GatedMLP", PARTS, option="model.encoder").__module__
    'pyro_dgm.nn.gated_mlp'
    """
    found = import_class(name, option=option) if "." in name else members(rooms).get(name)
    if found is not None:
        return found
    known = members(rooms)
    few = f" Known: {', '.join(known)}." if len(known) <= 20 else ""
    raise UsageError(
        f"--{option} {name}: no class of that name in {', '.join(rooms)}.{nearest(name, known)}{few} A class of your "
        f"own goes in by its import path, e.g. --{option} my_package.{name}."
    )


def members(rooms: Sequence[str]) -> dict[str, type]:
    """The public concrete classes of some rooms, by name, in the order of their ``__all__``."""
    found: dict[str, type] = {}
    for room in rooms:
        module = importlib.import_module(room)
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value) and not inspect.isabstract(value):
                found.setdefault(name, value)
    return found


def import_class(path: str, *, option: str) -> type:
    """Import ``package.module.Class``; the working directory is on the import path, as in ``python -m``.

    Raises:
        UsageError: If the module cannot be imported, or has no such class.
    """
    module_name, _, name = path.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--{option} {path}: cannot import {module_name!r} from {here} or the installed packages: {error}. "
            f"Run from the folder that holds it, or install it."
        ) from error
    except Exception as error:
        raise UsageError(f"--{option} {path}: importing {module_name!r} failed: {error!r}.") from error
    value = getattr(module, name, None)
    if not inspect.isclass(value):
        raise UsageError(f"--{option} {path}: {module_name} has no class {name}.{nearest(name, _own(module))}")
    return value


def path_of(cls: type) -> str:
    """The shortest import path that leads to a class: its room's when the room exports it, as in ``torch.nn.ReLU``.

    >>> path_of(find("MLP", PARTS, option="net"))
    'pyro_dgm.nn.MLP'
    """
    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        module = sys.modules.get(".".join(parts[:length]))
        if getattr(module, cls.__name__, None) is cls:
            return ".".join([*parts[:length], cls.__name__])
    return f"{cls.__module__}.{cls.__qualname__}"


def _own(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isclass(value)]
