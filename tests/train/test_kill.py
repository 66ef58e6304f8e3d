# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Runs survive kill -9 at any instant, and a signal from outside saves and exits."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pyro_dgm.train import load_weights
from tests.train.tiny import TinyStep, rows, run_program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("runs")
    ended = run_program("tests.train.killed", folder)
    return SimpleNamespace(folder=folder, err=ended.stderr, **json.loads(ended.stdout))


def weights(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    module = TinyStep(5).module
    found = load_weights(folder, module, best=False)
    sets = {"module": module.state_dict(), **{name: found.weights(name) for name in ("weights", "averaged", "best")}}
    return {(kind, name): value for kind, values in sets.items() for name, value in values.items()}


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) and rows(one) == rows(other)


def test_killed_at_random_instants_it_ends_the_same(done):
    whole, killed = done.folder / "whole", done.folder / "killed"
    assert done.kills >= 3
    assert same(whole, killed)
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["step-00000022", "step-00000024"]


def test_killed_at_any_file_operation_it_ends_the_same(done):
    assert done.operations >= 30
    for number in range(done.operations):
        run = done.folder / "operations" / str(number)
        assert same(done.folder / "short", run)
        assert not [path for path in run.rglob(".tmp*")]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_exits(done, name, code):
    assert getattr(done, name) == code
    folder = done.folder / name / "checkpoints"
    last = max(path.name for path in folder.iterdir())
    step = int(re.search(r"\d+", last)[0])
    assert step >= 7
    assert f"interrupted after step {step}. Its state is saved in {folder / last}" in done.err
    assert (folder / last / "manifest.json").exists()
