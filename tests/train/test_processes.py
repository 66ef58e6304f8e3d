# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Two processes train one model, stop together, fail together, and continue to the bit."""

import ast

import pytest
import torch

from tests.train.tiny import rows, run_program


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    ended = run_program("tests.train.processes", tmp_path)
    exits = ast.literal_eval(ended.stdout.splitlines()[-1])  # whole, again, NaN, stopped, resumed, compiled
    assert exits == [[0, 0], [4, 4], [3, 3], [130, 130], [0, 0], [0, 0]], ended.stderr
    ranks = [(tmp_path / "whole" / f"rank-{rank}").read_text() for rank in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0].startswith("20 15 ")  # half of 41 data, 5 steps in each of 3 epochs
    assert (tmp_path / "stopped" / "rank-0").read_text().split(" ", 2)[2] == ranks[0].split(" ", 2)[2]
    assert rows(tmp_path / "whole") == rows(tmp_path / "stopped")
    weights = [weights_of(tmp_path / name / "rank-1") for name in ("whole", "compiled")]
    torch.testing.assert_close(weights[1], weights[0])


def weights_of(file):
    left = ast.literal_eval(file.read_text().split(" ", 2)[2])
    return {name: torch.tensor(value) for name, value in left.items()}
