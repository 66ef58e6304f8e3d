# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Call a function with the words of a command line: its signature says which options there are and of which types."""

import inspect
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from typing import Any

from pyro_dgm.cli.errors import UsageError, type_error
from pyro_dgm.cli.words import check, split


def call(function: Callable[..., int], args: Sequence[str]) -> int:
    """Give a function its arguments: bare words are positional, ``--key value`` are keyword-only, flags are booleans.

    Raises:
        UsageError: For an unknown option (with the nearest known), a missing name, or a value of the wrong type.

    >>> def double(number: int, *, plus: int = 0) -> int:
    ...     return 2 * number + plus
    >>> call(double, ["4", "--plus", "1"])
    9
    """
    from jsonargparse import ArgumentParser

    parameters = inspect.signature(function).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    keys = [name for name in parameters if name not in names]
    words = split(args, flags=[key for key in keys if parameters[key].default is False])
    check(words, keys, names=len(names))
    given: dict[str, Any] = {**dict(zip(names, words.names, strict=False)), **dict(words.options)}
    for name in names:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise UsageError(f"which {name.upper()}? Say it after the verb; --help shows an example.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(function)
    try:
        values = parser.parse_object({**given, **dict.fromkeys(words.flags, True)})
    except (ArgumentError, TypeError) as error:
        raise UsageError(type_error(str(error))) from error
    return function(**{name: values[name] for name in parameters})
