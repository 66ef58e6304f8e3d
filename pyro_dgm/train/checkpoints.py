# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Keeps a run's last two checkpoints, the newest undamaged of which the run continues from."""

import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_dgm.train.checkpoint import Checkpoint
from pyro_dgm.train.durable import TEMPORARY, explained, remove_unfinished
from pyro_dgm.train.errors import CheckpointError

KEPT = 2  # the newest, and the one to fall back to


class Checkpoints:
    """The folder ``checkpoints`` of a run, with a folder like ``step-00001234`` for each checkpoint.

    Args:
        folder: The folder, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, step: int, module: nn.Module, state: dict[str, Any], copies: Mapping[str, dict[str, Tensor]]
    ) -> Checkpoint:
        """Save a step, and delete what is no longer needed.

        Args:
            step: How many steps are done.
            module: Whose weights to save.
            state: What else is needed to continue.
            copies: Other weights of the module, see `Checkpoint.write`.

        Returns:
            The new checkpoint, or the one that was there for this step.

        Raises:
            OSError: If it cannot be written; the last checkpoint is intact then.
        """
        path = self.folder / f"step-{step:08d}"
        last = self.paths()[-1:]
        advice = f"The last good checkpoint is {last[0]}; " if last else "There is no checkpoint yet; "
        with explained(self.folder.parent, advice + "make room or permit writing, then continue with --resume."):
            if path not in last:
                self.folder.mkdir(parents=True, exist_ok=True)
                Checkpoint.write(path, module, state, copies)
            self._prune()
        return Checkpoint(path)

    def paths(self) -> list[Path]:
        """List the checkpoints by step, damaged ones too."""
        names = re.compile(r"step-\d{8,}")
        found = [path for path in self.folder.glob("step-*") if names.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def latest(self) -> Checkpoint | None:
        """Find the newest undamaged checkpoint, with a warning for each damaged one that is passed over.

        Returns:
            The checkpoint, or None if there is none at all.

        Raises:
            CheckpointError: If all are damaged, or the newest is of another format version.
        """
        problems = []
        for path in reversed(self.paths()):
            checkpoint = Checkpoint(path)
            problem = checkpoint.problem()
            if problem is None:
                return checkpoint
            problems.append(problem)
            warnings.warn(f"The checkpoint {path} is damaged and passed over: {problem}.", stacklevel=2)
        if problems:
            raise CheckpointError(
                f"All {len(problems)} checkpoints in {self.folder} are damaged: {'; '.join(problems)}. Restore the "
                f"folder from a backup, or train anew in another run folder."
            )
        return None

    def tidy(self, newest: Checkpoint | None) -> None:
        """Delete what a killed run left unfinished, and set damaged checkpoints after the newest good one aside.

        Args:
            newest: The checkpoint to continue from.

        Raises:
            OSError: If the folder cannot be changed.
        """
        with explained(self.folder.parent, "Permit writing, then continue with --resume."):
            remove_unfinished(self.folder)
            paths = self.paths()
            for path in paths if newest is None else paths[paths.index(newest.path) + 1 :]:
                path.rename(_free(path.with_name(f"damaged-{path.name}")))

    def _prune(self) -> None:
        for path in self.paths()[:-KEPT]:
            unfinished = path.with_name(f"{TEMPORARY}old-{path.name}")
            path.rename(unfinished)  # a half-deleted checkpoint must not look like a damaged one
            shutil.rmtree(unfinished)


def _free(path: Path) -> Path:
    number = 0
    while (candidate := path.with_name(f"{path.name}-{number}" if number else path.name)).exists():
        number += 1
    return candidate
