# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Put data, model and bound together as a configuration says, on a device."""

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jsonargparse import Namespace

from pyro_dgm.cli import schema
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.run_folder import RunFolder
from pyro_dgm.data import Dataset
from pyro_dgm.infer import Objective
from pyro_dgm.infer.coordinate import ConjugateForm
from pyro_dgm.train import load_weights


@dataclass(frozen=True)
class Assembly:
    """The parts of a run.

    Attributes:
        data: On the device.
        program: A module with ``model`` and ``guide``, on the device.
        parts: Everything else that the configuration describes: trainer, optimiser factory, numbers.
    """

    data: Dataset
    program: Any
    parts: Namespace


def assemble(config: Namespace, *, device: torch.device | None = None) -> Assembly:
    """Build what a configuration describes. The same seed gives the same initial weights.

    Args:
        config: From ``schema.resolve``.
        device: Where to; None leaves everything on the CPU.

    Raises:
        UsageError: If the model is not a Pyro model with a guide, or is one with a posterior over its parameters.
        ValueError: What a constructor refuses.
    """
    pyro.set_rng_seed(config.seed)  # a command owns its process; no import ever does this
    parts = schema.instantiate(config)
    missing = [name for name in ("model", "guide") if not callable(getattr(parts.model, name, None))]
    if missing:
        raise UsageError(
            f"--model {config.model.class_path}: it has no method {' and no '.join(missing)}. A model is a PyroModule "
            f"with model(x=None, *, size=1) and guide(x); pyro_dgm.models.VAE is one."
        )
    if isinstance(parts.model, ConjugateForm):
        raise UsageError(
            f"--model {config.model.class_path}: it has a posterior over its parameters, which all data share, so "
            f"there is no bound per datum for `fit`. In Python pyro_dgm.infer.CoordinateAscent fits it; for a mixture "
            f"of normals so does `pyro-dgm compare gmm --methods mean_field`."
        )
    device = device or torch.device("cpu")
    program = parts.model.to(device)
    return Assembly(parts.data.to(device), program, parts)


def trained(folder: RunFolder, *, device: str | None = None) -> Assembly:
    """Build a run's parts and load its best weights.

    Raises:
        FileNotFoundError: If it has no checkpoint.
    """
    config = folder.config()
    assembly = assemble(config, device=choose_device(device or config.device))
    load_weights(folder.path, Objective(assembly.program.model, assembly.program.guide, assembly.parts.bound))
    return assembly


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is a GPU if there is one.

    Raises:
        UsageError: If torch does not know it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises, by kind of device
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]} Try auto, cpu or cuda.") from error
    return device
