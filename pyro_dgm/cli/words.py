# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sort the words of a command line into names, options and flags."""

from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

from pyro_dgm.cli.errors import UsageError, nearest


class Words(NamedTuple):
    """What a person typed after the verb: bare words, ``--key value`` pairs in order, and flags."""

    names: list[str]
    options: list[tuple[str, str]]
    flags: set[str]

    def last(self, key: str) -> str | None:
        """The value that ``--key`` was given last, or None."""
        return dict(self.options).get(key)


def split(args: Iterable[str], flags: Collection[str] = (), switches: Collection[str] = ()) -> Words:
    """Sort words into names, options and flags.

    ``--key value`` and ``--key=value`` mean the same, and so do ``--batch-size`` and ``--batch_size``. A flag has no
    value; a switch may have one, and without means true.

    Raises:
        UsageError: If an option has no value.

    >>> split(["RUN", "--model.latent", "20", "--lr=1e-3"])
    Words(names=['RUN'], options=[('model.latent', '20'), ('lr', '1e-3')], flags=set())
    """
    words = Words([], [], set())
    queue = iter(args)
    while (word := next(queue, None)) is not None:
        if not word.startswith("--"):
            words.names.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        if key in flags and not equals:
            words.flags.add(key)
            continue
        if not equals:
            following = next(queue, None)
            if key in switches and (following is None or following.startswith("--")):
                queue, following = chain([] if following is None else [following], queue), "true"
            if following is None or following.startswith("--"):
                raise UsageError(f"option --{key} needs a value: --{key} VALUE or --{key}=VALUE.")
            value = following
        words.options.append((key, value))
    return words


def check(words: Words, known: Collection[str], *, names: int) -> None:
    """Refuse an unknown option, naming the nearest known one, and a bare word too many.

    Raises:
        UsageError: For an unknown option, or more than ``names`` bare words.
    """
    for key, _ in words.options:
        if key.partition(".")[0] not in known:
            raise UsageError(f"unknown option --{key}.{nearest(key, known, prefix='--')}")
    if len(words.names) > names:
        takes = f"{names} word{'s' * (names != 1)}" if names else "only options"
        raise UsageError(f"got {' '.join(words.names)!r}, but takes {takes}; options begin with --.")
