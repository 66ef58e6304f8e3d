# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every test and every doctest starts from: fixed seeds, an empty parameter store, no window, one thread.

It lies beside the package and not in ``tests`` because pytest gives a ``conftest.py`` to the files below it only, and
the doctests are in ``pyro_dgm``.
"""

import math
import os
import random

os.environ.setdefault("MPLBACKEND", "Agg")  # before matplotlib is imported: pictures are made without a screen

import numpy as np
import pyro
import pytest
import torch

torch.set_num_threads(1)  # the tests run on all cores already, one process each


@pytest.fixture(autouse=True)
def fixed_chance() -> None:
    """Seed every source of chance and forget the parameters of the test before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    pyro.clear_param_store()
    pyro.enable_validation(is_validate=True)  # torch.compile switches it off for the whole process


@pytest.fixture(autouse=True)
def names_in_doctests(doctest_namespace: dict[str, object], fixed_chance: None) -> None:
    """Let a doctest use ``math``, ``torch`` and ``pyro`` without importing them."""
    doctest_namespace.update(math=math, torch=torch, pyro=pyro)
