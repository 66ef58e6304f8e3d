# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Say what was wrong with the words that were typed, and what was probably meant."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UsageError(ValueError):
    """Words that make no sense to a verb. The message says what came, what is known and what to try."""


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """A sentence with the nearest known words, or an empty one.

    Case does not count, and a word that begins or ends another is near it.

    >>> nearest("bacth_size", ["batch_size", "seed"], prefix="--")
    ' Did you mean --batch_size?'
    >>> nearest("mnist", ["MNIST", "Digits"])
    ' Did you mean MNIST?'
    """
    by_lower = {candidate.lower(): candidate for candidate in sorted(known)}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=2, cutoff=0.6)
    if not matches:
        matches = [key for key in by_lower if len(word) > 2 and (word.lower() in key or key in word.lower())][:2]
    return f" Did you mean {' or '.join(prefix + by_lower[match] for match in matches)}?" if matches else ""


def type_error(message: str) -> str:
    r"""Make jsonargparse's nested message one line: the option's dotted name and what was wrong with its value.

    >>> type_error("Parser key 'model':\n  Parser key 'latent':\n    Expected a <class 'int'>. Got value: x")
    '--model.latent: expected int. Got value: x'
    """
    option = ".".join(dict.fromkeys(re.findall(r"Parser key ['\"]([^'\"]+)['\"]", message)))
    lines = [line.strip(" -") for line in message.splitlines() if "NoneType" not in line]
    telling = ("Expected", "required", "does not correspond", "does not specify")
    reasons = [line for line in lines if any(word in line for word in telling)] or lines[-1:]
    given = [line for line in lines if line.startswith("Given value:") and "class_path" not in line]
    reason = "; ".join([*reasons, *given])
    reason = re.sub(r"\.? Got value: Namespace\(.*", "", reason)
    reason = re.sub(r"Type \S.* expects a function or a callable class: ", "", reason)
    reason = re.sub(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing\.(Literal.*?\]))", r"expected \1\2", reason)
    return f"--{option}: {reason}" if option else message


def is_mistake(error: Exception) -> bool:
    """Whether an error is about what was asked for, so that its message is enough without a traceback."""
    ours = type(error).__module__.startswith("pyro_dgm.")
    return ours or isinstance(error, (ValueError, OSError, ImportError))


@contextmanager
def resumable(command: str, folder: Path) -> Iterator[None]:
    """When Ctrl-C comes after a folder was made, say which command continues in it."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.exists():
            print(f"continue with: {command}", file=sys.stderr)
        raise


def wants_traceback() -> bool:
    """Whether a person who looks for a fault asked for the whole traceback."""
    return os.environ.get("PYRO_DGM_TRACEBACK", "") not in {"", "0"}
