# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores the state of all global random generators, so that a resumed run draws the same numbers."""

import random
import sys
from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """Collect the states of Torch's (Pyro's too), NumPy's and Python's generators as plain data and tensors."""
    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": (version, torch.tensor(numbers), gauss)}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        state["numpy"] = (name, torch.tensor(keys.astype("int64")), *rest)
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` collected.

    Args:
        state: Its result; what it has of generators that are absent here is passed over.
    """
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in state:
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, keys.numpy(), *rest))
