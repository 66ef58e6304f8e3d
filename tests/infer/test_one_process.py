# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Methods that sum over all data refuse to run in several processes."""

import pytest
from torch import distributed

from pyro_dgm.infer import EM, CoordinateAscent
from pyro_dgm.infer.one_process import require_one_process
from pyro_dgm.models import BayesianMixture, KMeans


def test_several_processes_are_refused_and_one_is_not(monkeypatch):
    for processes in (1, 3):
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda processes=processes: processes)
        for who, make in (
            ("EM", lambda: EM(KMeans(dim=2, components=2))),
            ("CoordinateAscent", lambda: CoordinateAscent(BayesianMixture(dim=2, components=2))),
            ("Somebody", lambda: require_one_process("Somebody")),
        ):
            if processes == 1:
                make()
            else:
                with pytest.raises(ValueError, match=f"{who} runs in one process, and there are 3"):
                    make()
