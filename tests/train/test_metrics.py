# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Numbers reach metrics.csv and TensorBoard, and those after the checkpoint are dropped when a run continues."""

import errno
import os

import pytest

from pyro_dgm.train import metrics as module
from pyro_dgm.train.metrics import Metrics

TIME = {"seconds": 1.0, "images_per_second": 2.0}


def write(folder, *steps: int, start: int = 0, **options) -> None:
    with Metrics(folder, step=start, tensorboard=False, **options) as metrics:
        for step in steps:
            metrics.row("train", step=step, epoch=1, values={"loss": step / 3}, times=TIME)


def test_new_columns_may_come_later(tmp_path):
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.row("train", step=1, epoch=1, values={"loss": 0.1}, times=TIME)
        metrics.row("valid", step=1, epoch=1, values={"loss": 0.2, "log_p.x": -0.3}, times=TIME)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,epoch,split,seconds,images_per_second,loss,log_p.x\n1,1,train,1.0,2.0,0.1,\n1,1,valid,1.0,2.0,0.2,-0.3\n"
    )


def test_later_rows_and_half_lines_are_dropped_when_continuing(tmp_path):
    write(tmp_path, 1, 2)
    expected = (tmp_path / "metrics.csv").read_text()
    write(tmp_path, 3, 40, start=2)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1")  # of 100, say
    write(tmp_path, start=2)
    assert (tmp_path / "metrics.csv").read_text() == expected


def test_rows_wait_but_not_for_long(tmp_path, monkeypatch):
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.row("train", step=1, epoch=1, values={}, times=TIME)
        assert "train" not in (tmp_path / "metrics.csv").read_text()
        monkeypatch.setattr(module, "INTERVAL", 0.0)
        metrics.row("train", step=2, epoch=1, values={}, times=TIME)
        assert (tmp_path / "metrics.csv").read_text().count("train") == 2


def test_tensorboard_has_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Metrics(tmp_path) as metrics:
        metrics.row("train", step=5, epoch=1, values={"loss": 0.5}, times=TIME)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(5, 0.5)]


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.row("train", step=1, epoch=1, values={}, times=TIME)
    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(OSError, match="Cannot write to the run folder .* continue from the last checkpoint"):
        metrics.flush()
