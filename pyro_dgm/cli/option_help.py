# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Answer ``--model.help VAE``: the options of the class that an option takes."""

from collections.abc import Sequence

from pyro_dgm.cli.describe import describe
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.names import PARTS, ROOMS, find
from pyro_dgm.cli.schema import DEFAULTS, LINKED, TAKEN
from pyro_dgm.cli.specs import VALUE, roles, signature
from pyro_dgm.cli.words import split


def option_help(args: Sequence[str]) -> str | None:
    """Describe the class that follows the first ``--OPTION.help``; without one, the default class of the option.

    Args:
        args: Words of a command line.

    Returns:
        The description, or None if nobody asked.

    Raises:
        UsageError: If there is no such option or class.
    """
    for position, word in enumerate(args):
        key, _, name = word.removeprefix("--").partition("=")
        if word.startswith("--") and key.endswith(".help"):
            following = [*args[position + 1 :], "--"][0]
            name = name or ("" if following.startswith("--") else following)
            return _describe(key.removesuffix(".help"), name, dict(split(args[:position]).options))
    return None


def _describe(option: str, name: str, named: dict[str, str]) -> str:
    if option == "trainer":
        from pyro_dgm.train import Trainer

        return describe(Trainer, option=option, hidden=frozenset({"seed"}))
    head, _, part = option.partition(".")
    if head not in ROOMS:
        raise UsageError(f"--{option}.help: only {', '.join(ROOMS)}, trainer and their parts have options.")
    owner = _class(option.rpartition(".")[0], named) if part else None
    cls = _class(option, {**named, **({option: name} if name else {})})
    if cls is None:
        raise UsageError(f"--{option}.help needs the name of a class. `pyro-dgm list` names them.")
    role = roles(owner).get(option.rpartition(".")[2], VALUE) if owner else VALUE
    taken = role.taken if part else TAKEN.get(option, 0)
    return describe(cls, option=option, taken=taken, hidden=LINKED if option == "model" else role.given)


def _class(option: str, named: dict[str, str]) -> type | None:
    """The class that an option has: the named one, or the default of the class that it is an option of."""
    before, _, last = option.rpartition(".")
    if option in named:
        return find(named[option], PARTS if before else ROOMS[option], option=option)
    if not before:
        default = DEFAULTS.get(option) or ""
        default = default if isinstance(default, str) else default["class_path"]
        return find(default, ROOMS[option], option=option) if default else None
    owner = _class(before, named)
    parameter = signature(owner).get(last) if owner else None
    return parameter.default if parameter and isinstance(parameter.default, type) else None
