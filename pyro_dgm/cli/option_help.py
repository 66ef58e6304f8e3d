# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Answer ``--model.help VAE``: the options of the class that an option takes."""

from collections.abc import Sequence

from pyro_dgm.cli.describe import describe
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.names import PARTS, ROOMS, find
from pyro_dgm.cli.schema import DEFAULTS, LINKED, TAKEN
from pyro_dgm.cli.specs import roles


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
            return _describe(key.removesuffix(".help"), name or ("" if following.startswith("--") else following))
    return None


def _describe(option: str, name: str) -> str:
    if option == "trainer":
        from pyro_dgm.train import Trainer

        return describe(Trainer, option=option, hidden=frozenset({"seed"}))
    head, _, part = option.partition(".")
    if head not in ROOMS:
        raise UsageError(f"--{option}.help: only {', '.join(ROOMS)}, trainer and their parts have options.")
    name = name or _default(option)
    if not name:
        raise UsageError(f"--{option}.help needs the name of a class. `pyro-dgm list` names them.")
    cls = find(name, PARTS if part else ROOMS[head], option=option)
    owner = roles(find(_default(head), ROOMS[head], option=head)) if part and _default(head) else {}
    taken = owner[part].taken if part in owner else TAKEN.get(option, 0)
    return describe(cls, option=option, taken=taken, hidden=LINKED if option == "model" else frozenset())


def _default(option: str) -> str:
    default = DEFAULTS.get(option) or ""
    return default if isinstance(default, str) else default["class_path"]
