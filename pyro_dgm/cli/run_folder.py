# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: where its configuration, weights, results and pictures lie, and how to read and write them."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_dgm.cli import schema
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.train.durable import replace_file


class RunFolder:
    """``config.yaml``, ``metrics.csv``, ``events.*``, ``checkpoints/``, ``figures/`` and ``results.json`` of one run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, path: Path | None, config: Namespace) -> "RunFolder":
        """Choose where a new run goes; the trainer makes the folder.

        Args:
            path: Where; ``runs/<data>-<model>-<time>`` if None.
            config: The resolved configuration.

        Raises:
            UsageError: If there is something at that path already.
        """
        path = path or Path("runs") / f"{_name(config.data)}-{_name(config.model)}-{datetime.now():%Y%m%d-%H%M%S}"
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"{path} exists already, and nothing is overwritten. Give another --folder, or continue that run with "
                f"--resume {path}."
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of a run that was begun.

        Raises:
            UsageError: If there is no run in it.
        """
        folder = cls(path)
        if not folder.config_path.is_file():
            what = "has no config.yaml" if path.is_dir() else "does not exist"
            raise UsageError(f"{path} is not a run folder: it {what}. `pyro-dgm fit` makes one.")
        return folder

    @property
    def config_path(self) -> Path:
        """Where the resolved configuration lies."""
        return self.path / "config.yaml"

    @property
    def figures(self) -> Path:
        """Where the pictures lie."""
        return self.path / "figures"

    def config(self) -> Namespace:
        """The run's configuration, checked anew.

        Raises:
            UsageError: If it is not valid any more, e.g. because a class of the user's own cannot be imported.
        """
        return schema.resolve(schema.load(self.config_path))

    def write_config(self, config: Namespace) -> None:
        """Put another configuration in the place of the old one."""
        replace_file(self.config_path, schema.dump(config).encode())

    def results(self) -> dict[str, Any]:
        """What was measured so far, empty before anything was."""
        path = self.path / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def add_results(self, results: dict[str, Any]) -> None:
        """Add measured numbers to ``results.json``; a kill leaves the old file or the new one."""
        text = json.dumps({**self.results(), **results}, indent=1, allow_nan=False)
        replace_file(self.path / "results.json", f"{text}\n".encode())


def _name(spec: Namespace) -> str:
    """A class's short name as part of a file name."""
    return re.sub(r"\W", "", spec.class_path.rpartition(".")[2]).lower()
