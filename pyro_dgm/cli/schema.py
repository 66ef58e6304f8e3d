# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: what its keys are, what types they have, how it becomes YAML and objects.

jsonargparse does the typing: it reads constructor signatures, converts and checks every value, writes the resolved YAML
and instantiates. ``shape`` and ``levels`` of the data are linked to the model: whatever class it is, it gets those of
the two that its constructor has.
"""

import re
from argparse import ArgumentError
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from pyro_dgm.cli.compilation import Choice
from pyro_dgm.cli.errors import UsageError, nearest, type_error
from pyro_dgm.cli.layers import Tree, merge
from pyro_dgm.cli.names import ROOMS, import_class
from pyro_dgm.cli.specs import complete, signature

DEFAULTS: Tree = {
    "data": None,
    "model": "VAE",
    "bound": "ELBO",
    "optimizer": {"class_path": "Adam", "init_args": {"lr": 1e-3}},  # Kingma & Ba's own default
    "scheduler": None,
    "clip_norm": None,
    "batch_size": 100,  # what the tables in recipes/ use
    "seed": 0,
    "threads": None,
    "device": "auto",
    "devices": 1,
    "strategy": "auto",
    "precision": "32-true",
    "compile": "auto",
    "trainer": {},
}
LINKED = frozenset({"shape", "levels"})
TAKEN = {"optimizer": 1, "scheduler": 1}
"""Their first parameter, what to optimise or to schedule, is not an option."""


def resolve(*layers: Tree) -> Namespace:
    """Lay configurations over the defaults, complete every class, convert and check every value.

    Raises:
        UsageError: For an unknown key, class or option (with the nearest), or a value of the wrong type.
    """
    config = DEFAULTS
    for layer in layers:
        _check_keys(layer)
        config = merge(config, layer)
    if config["data"] is None:
        raise UsageError("which data? Give --data MNIST, or --config FILE.yaml. `pyro-dgm list data` names all.")
    config = dict(config)
    for key, rooms in ROOMS.items():
        if config[key] not in (None, "null"):
            linked = LINKED if key == "model" else frozenset()
            config[key] = complete(config[key], rooms, option=key, linked=linked, taken=TAKEN.get(key, 0))
    try:
        return parser().parse_object(config)
    except (ArgumentError, TypeError) as error:
        raise UsageError(type_error(str(error))) from error


def load(path: Path) -> Tree:
    """Read a configuration from YAML.

    Raises:
        UsageError: If there is no such file, or it is not a YAML mapping.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} holds {type(config).__name__}, not a mapping of options such as 'data: MNIST'.")
    return config


def dump(config: Namespace) -> str:
    """The resolved configuration as YAML, complete: fed back, it gives the same configuration."""
    return parser().dump(config, skip_unset=False)


def instantiate(config: Namespace) -> Namespace:
    """Make data, model, bound and trainer; optimiser and scheduler stay factories.

    Raises:
        UsageError: If a model of integers gets real numbers; or with what a constructor itself said, where jsonargparse
            lists it among the types it tried.
    """
    try:
        return parser(model=config.model.class_path).instantiate(config)
    except ValueError as error:
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        said = re.findall(r"^\s+- (?!Expected a |Does not validate )(.+)$", str(error), re.MULTILINE)
        if not said:
            raise
        raise UsageError(said[0]) from error


def parser(*, model: str | None = None) -> ArgumentParser:
    """The types of all keys, read from signatures; the model's path tells what it must know of the data."""
    from pyro.infer import ELBO
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from pyro_dgm.data import Dataset
    from pyro_dgm.train import Trainer

    typed = ArgumentParser(exit_on_error=False)
    for key, base in (("data", Dataset), ("model", nn.Module), ("bound", ELBO)):
        typed.add_subclass_arguments(base, key, fail_untyped=False, required=True)  # a user's code may have no types
    typed.add_argument("--optimizer", type=Callable[[Iterable], Optimizer])
    typed.add_argument("--scheduler", type=Callable[[Optimizer], LRScheduler] | None)
    typed.add_argument("--clip_norm", type=float | None)
    typed.add_argument("--batch_size", type=int)
    typed.add_argument("--seed", type=int)
    typed.add_argument("--threads", type=int | None)
    typed.add_argument("--device", type=str)
    typed.add_argument("--devices", type=int)
    typed.add_argument("--strategy", type=str)
    typed.add_argument("--precision", type=str)
    typed.add_argument("--compile", type=Choice)
    typed.add_class_arguments(Trainer, "trainer")
    typed.link_arguments("seed", "trainer.seed")
    wanted = signature(import_class(model, option="model")) if model else {}
    for name in sorted(LINKED):
        compute = _description(name, wanted=name in wanted)
        typed.link_arguments("data", f"model.init_args.{name}", compute_fn=compute, apply_on="instantiate")
    return typed


def _description(name: str, *, wanted: bool) -> Callable[[Any], Any]:
    def linked(data: Any) -> Any:  # noqa: ANN401 -- a data set of the user's own may be anything
        value = getattr(data.description, name)
        if value is None and wanted:
            raise UsageError(
                f"the model wants to know the {name} of the data, and {data.description.name} has none: it is real "
                f"numbers. Give a density model, e.g. --model FlowModel, or data of integers."
            )
        return value

    return linked


def _check_keys(layer: Tree) -> None:
    for key in layer:
        if key not in DEFAULTS:
            hint = nearest(key, DEFAULTS, prefix="--")
            raise UsageError(f"unknown option --{key}.{hint} Known: {', '.join(DEFAULTS)}.")
    from pyro_dgm.train import Trainer

    known = [name for name in signature(Trainer) if name != "seed"]  # linked to the run's
    for name in layer.get("trainer") or {}:
        if name not in known:
            hint = nearest(name, known, prefix="--trainer.")
            raise UsageError(f"unknown option --trainer.{name}.{hint} Known: {', '.join(known)}.")
