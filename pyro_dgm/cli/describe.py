# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Describe a class and its options in a few lines: what ``--model.help VAE`` prints."""

import inspect
import re
import textwrap

from pyro_dgm.cli.specs import signature

WIDTH = 100


def describe(cls: type, *, option: str, taken: int = 0, hidden: frozenset[str] = frozenset()) -> str:
    """The class's first docstring line, then one entry for each option: name, type, default, what it is.

    Args:
        cls: Any class.
        option: What its options begin with on the command line, e.g. ``model``.
        taken: How many of the first parameters are not options, because whoever calls the class gives them.
        hidden: Other parameters that are set from elsewhere.
    """
    documented = arguments(cls)
    lines = [f"{cls.__name__}: {first_line(cls)}", ""]
    for name, parameter in list(signature(cls).items())[taken:]:
        if name in hidden or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        lines.append(f"  --{option}.{name} {_value(parameter)}")
        lines += textwrap.wrap(documented.get(name, ""), WIDTH - 6, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def first_line(thing: object) -> str:
    """The first sentence of a docstring, or an empty string."""
    text = inspect.getdoc(thing) or ""
    return " ".join(text.partition("\n\n")[0].split())


def arguments(cls: type) -> dict[str, str]:
    """What a Google-style ``Args:`` block says of each argument, of the class or of its constructor."""
    for text in (inspect.getdoc(cls), inspect.getdoc(cls.__init__)):  # type: ignore[misc]
        block = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text or "", re.MULTILINE)
        if block:
            pairs = [entry.partition(":") for entry in re.split(r"\n(?=\w)", textwrap.dedent(block[1]))]
            return {name.split(" ")[0].strip(): " ".join(said.split()) for name, _, said in pairs}
    return {}


def _value(parameter: inspect.Parameter) -> str:
    hint = parameter.annotation
    written = hint.__name__ if inspect.isclass(hint) and not hasattr(hint, "__args__") else str(hint)
    written = re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", written) if hint is not parameter.empty else "VALUE"
    if parameter.default is parameter.empty:
        return f"{written}  (required)"
    default = parameter.default.__name__ if inspect.isclass(parameter.default) else parameter.default
    return f"{written}  (default: {default})"
