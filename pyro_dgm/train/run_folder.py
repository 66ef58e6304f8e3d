# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Opens a run's folder, and refuses one that holds something else."""

from pathlib import Path
from typing import Any

import yaml

from pyro_dgm.train.durable import explained, remove_unfinished, replace_file


def open_run_folder(folder: Path, config: dict[str, Any] | None, *, resume: bool) -> None:
    """Make the folder, with the configuration in it, or check that there is one to resume.

    Args:
        folder: The run folder.
        config: What to write to ``config.yaml``, plain data; kept as it is when resuming.
        resume: Whether a run is to be continued.

    Raises:
        FileExistsError: If the folder exists and holds something, and ``resume`` is false.
        FileNotFoundError: If it does not exist, and ``resume`` is true.
        OSError: If it cannot be written.
    """
    if resume and not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder} to resume. Start the run without --resume.")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(
            f"The run folder {folder} exists already. Continue that run with --resume {folder}, or choose another one."
        )
    with explained(folder, "Choose a folder that can be written to."):
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        path = folder / "config.yaml"
        if config is not None and not path.exists():
            replace_file(path, yaml.safe_dump(config, sort_keys=False).encode())
