# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Loads the weights of a trained model from its run folder, for evaluation and sampling."""

from os import PathLike
from pathlib import Path

from torch import nn

from pyro_dgm.train.checkpoint import MANIFEST, Checkpoint
from pyro_dgm.train.checkpoints import Checkpoints
from pyro_dgm.train.errors import CheckpointError


def load_weights(where: str | PathLike[str], module: nn.Module, *, best: bool = True) -> Checkpoint:
    """Put trained weights into a module: a run's best ones, averaged where an average was kept.

    Args:
        where: A run folder, or the folder of one checkpoint.
        module: A module with the entries of the one that was trained, `step.module`; dtype and device may differ.
        best: Whether to take the weights of the epoch with the lowest validation loss, if there was validation, instead
            of the last ones.

    Returns:
        The checkpoint that the weights are from.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If it is of another model or version, or all are damaged.
    """
    folder = Path(where)
    if (folder / MANIFEST).exists():
        found: Checkpoint | None = Checkpoint(folder)
        problem = Checkpoint(folder).problem()
        if problem is not None:
            raise CheckpointError(f"The checkpoint {folder} is damaged: {problem}. Take another one of its run.")
    else:
        found = Checkpoints(folder / "checkpoints").latest()
    if found is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint: it is neither a run folder nor a checkpoint's folder.")
    weights = found.weights(*(["best"] if best else []), "averaged", "weights")
    found.check(module, weights)
    module.load_state_dict(weights)
    return found
