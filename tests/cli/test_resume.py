# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C saves and exits with 130; a resumed run ends as the undisturbed one."""

import csv
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.cli.conftest import TINY

INTERRUPTING = '''
"""A VAE that presses Ctrl-C at a step."""
import os, signal
from pyro_dgm.models import VAE

class Interrupting(VAE):
    """Counts how often it is trained."""
    calls = 0

    def model(self, x=None, *, size=1):
        if self.training and x is not None:
            Interrupting.calls += 1
            if Interrupting.calls == int(os.environ.get("PRESS_AT", 0)):
                signal.raise_signal(signal.SIGINT)
        return super().model(x, size=size)
'''
WORDS = TINY.replace("--model.likelihood", "--model interrupting.Interrupting --model.likelihood")
WORDS = WORDS.replace("--trainer.epochs 1", "--trainer.epochs 3 --trainer.log_every 5")


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "interrupting.py").write_text(INTERRUPTING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("interrupting", None)
    return tmp_path


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


def test_an_interrupted_run_goes_on_to_the_bit(place, say, monkeypatch):
    assert say(f"fit {WORDS} --folder whole")[0] == 0
    sys.modules["interrupting"].Interrupting.calls = 0
    monkeypatch.setenv("PRESS_AT", "20")
    code, _, err = say(f"fit {WORDS} --folder parts")
    assert code == 130
    assert "continue with: pyro-dgm fit --resume parts" in err
    assert not (place / "parts" / "results.json").exists()
    monkeypatch.delenv("PRESS_AT")
    assert say("fit --resume parts")[0] == 0
    assert metrics(place / "parts") == metrics(place / "whole")
    assert (place / "parts" / "results.json").exists()


def test_a_signal_to_the_process_exits_with_130(tmp_path):
    words = [*TINY.replace("epochs 1", "epochs 100000").split(), "--folder", str(tmp_path / "run")]
    command = [sys.executable, "-m", "pyro_dgm.cli", "fit", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "metrics.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Its state is saved in" in err
    assert b"Traceback" not in err


def test_training_can_be_prolonged(tiny_run, say, tmp_path):
    folder = tmp_path / "run"
    folder.symlink_to(tiny_run)
    code, out, _ = say(f"fit --resume {folder} --trainer.epochs 2")
    assert code == 0
    assert yaml.safe_load((tiny_run / "config.yaml").read_text())["trainer"]["epochs"] == 2
    assert {row["epoch"] for row in metrics(folder)} == {"1", "2"}


@pytest.mark.parametrize("change", ["--model.latent 3", "--folder other", "--batch_size 7"])
def test_a_resumed_run_stays_what_it_is(tiny_run, say, change):
    code, _, err = say(f"fit --resume {tiny_run} {change}")
    assert code == 2
    assert f"{change.split()[0]} cannot be given with --resume" in err
