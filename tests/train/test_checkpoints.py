# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A run keeps two checkpoints, falls back to the older one, and clears up what a kill has left."""

import errno
import os

import pytest
import torch
from torch import nn

from pyro_dgm.train import CheckpointError
from pyro_dgm.train.checkpoints import Checkpoints


@pytest.fixture
def store(tmp_path) -> Checkpoints:
    store = Checkpoints(tmp_path / "checkpoints")
    for step in (0, 9, 10):
        save(store, step)
    return store


def save(store: Checkpoints, step: int) -> None:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, step)
    store.save(step, module, {"step": step}, {})


def names(store: Checkpoints) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_the_last_two_are_kept(store):
    assert names(store) == ["step-00000009", "step-00000010"]
    assert store.latest().state() == {"step": 10}


def test_steps_are_ordered_as_numbers(store):
    save(store, 100_000_000)
    save(store, 99_999_999)
    assert [path.name for path in store.paths()] == ["step-99999999", "step-100000000"]


def test_saving_a_step_twice_changes_nothing(store):
    save(store, 10)
    assert names(store) == ["step-00000009", "step-00000010"]


def test_a_damaged_one_is_passed_over_and_set_aside(store):
    (store.folder / "step-00000010" / "state.json").write_bytes(b"{}")
    with pytest.warns(UserWarning, match="step-00000010 is damaged and passed over: .*state.json differs"):
        found = store.latest()
    assert found.state() == {"step": 9}
    store.tidy(found)
    assert names(store) == ["damaged-step-00000010", "step-00000009"]
    save(store, 10)
    assert names(store) == ["damaged-step-00000010", "step-00000009", "step-00000010"]


def test_if_all_are_damaged_it_says_so(store):
    for path in store.paths():
        (path / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="passed over"), pytest.raises(CheckpointError, match="All 2 checkpoints"):
        store.latest()


def test_there_may_be_none(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None


def test_what_a_kill_left_is_deleted(store):
    for name in (".tmp-step-00000011-123", ".tmp-old-step-00000000"):
        (store.folder / name).mkdir()
        (store.folder / name / "weights.safetensors").write_bytes(b"half")
    store.tidy(store.latest())
    assert names(store) == ["step-00000009", "step-00000010"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_leaves_the_last_checkpoint_and_a_message(store, monkeypatch, number):
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        OSError, match="Cannot write to the run folder .*The last good checkpoint is .*step-00000010"
    ) as e:
        save(store, 11)
    monkeypatch.undo()
    assert e.value.errno == number
    assert os.strerror(number) in str(e.value)
    assert names(store) == ["step-00000009", "step-00000010"]
    assert torch.equal(store.latest().weights()["weight"], torch.full((1, 1), 10.0))
