# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the devices they run on, the real data, and how many inputs Hypothesis tries."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from pyro_dgm.data.files import FOLDER_VARIABLE

# Inputs are the same in every run (`derandomize`): a red test stays red, and a green one is not luck. No deadline: the
# first call of a function pays for its imports. Thirty inputs keep the suite in minutes; `pytest
# --hypothesis-profile=thorough` tries two thousand new ones.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("thorough", settings.get_profile("house"), derandomize=False, max_examples=2000)
settings.load_profile("house")

REAL = os.environ.get(FOLDER_VARIABLE)  # tests of the room of data take it out of the environment


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine: the CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def data_root() -> Path:
    """The folder of real data files; without one, the tests that need it are skipped."""
    if not REAL:
        pytest.skip(f"{FOLDER_VARIABLE} names no folder of real data files")
    return Path(REAL)
