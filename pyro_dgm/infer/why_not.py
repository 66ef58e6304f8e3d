# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Say why a program could not be captured: at which sample site, in which line, and what that line asked for."""

import os
import traceback
from pathlib import Path
from typing import Any

import torch

from pyro_dgm.infer.hands_off import READS, NotCapturable
from pyro_dgm.infer.recording import AFTER

INSTALLED = Path(torch.__file__).parents[1]
LIBRARIES = tuple(f"{INSTALLED / name}{os.sep}" for name in ("beartype", "jaxtyping", "pyro", "torch"))
MINE = str(Path(__file__).parent)
ASKS = ("DataDependent", "UserError", "GuardOnDataDependent")
"""How the names of torch's errors begin, or what they contain, where a program looks at numbers."""


def why_not(error: BaseException) -> str:
    """Explain an error that came up while a program was recorded.

    Args:
        error: What was raised.

    Returns:
        A phrase such as ``at the sample site 'z' (VonMises): flow.py:12, while not done.all(): it looks at ...``.
    """
    after = next((note for note in getattr(error, "__notes__", ()) if note.startswith(AFTER)), None)
    while error.__cause__ is not None:  # Pyro wraps what is raised inside of a handler
        error = error.__cause__
    site = _site(error)
    where = f"{after}: " if after else ""
    if site is not None:
        where = f"at the sample site {site['name']!r} ({_kind(site['fn'])}): "
    return f"{where}{_line(error)}{_what(error)}"


def _what(error: BaseException) -> str:
    if isinstance(error, NotCapturable):
        return str(error)
    if any(part in type(error).__name__ for part in ASKS):
        return READS
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


def _site(error: BaseException) -> dict[str, Any] | None:
    """Find the sample site that was at work, in the innermost frame that has one."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name in ("msg", "site"):
            value = frame.f_locals.get(name)
            if isinstance(value, dict) and value.get("type") == "sample" and value.get("name"):
                found = value
    return found


def _kind(fn: Any) -> str:  # noqa: ANN401 -- a distribution, maybe an event of many
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


def _line(error: BaseException) -> str:
    """Quote the innermost line that is neither torch's nor Pyro's nor of the machinery here."""
    for entry in reversed(traceback.extract_tb(error.__traceback__)):
        if not entry.filename.startswith((*LIBRARIES, MINE, "<")):
            return f"{Path(entry.filename).name}:{entry.lineno}, `{entry.line}`: "
    return ""
