# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A run folder that several tests look at, and the command line as these tests call it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_dgm.cli import main

TINY = (
    "--data Digits --model.likelihood CategoricalLikelihood --model.latent 2 --model.encoder.hidden [8] "
    "--model.decoder.hidden [8] --trainer.epochs 1 --trainer.tensorboard false --threads 1"
)
Say = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["fit", *TINY.split(), "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line; give its exit code, what it printed, and what it complained about."""

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(line.split())
        return (code, *capsys.readouterr())

    return run
