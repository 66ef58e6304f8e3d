# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Train what a configuration describes, then say and draw how it went."""

import csv
import inspect
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from torch import nn

from pyro_dgm.cli import schema
from pyro_dgm.cli.assembly import Assembly, assemble, choose_device
from pyro_dgm.cli.compilation import compiles
from pyro_dgm.cli.run_folder import RunFolder
from pyro_dgm.data import Dataset, Split
from pyro_dgm.infer import GradientStep
from pyro_dgm.train import History, Validation, gradient_step, launch_fabric, load_weights, shard


@dataclass(frozen=True)
class Trained:
    """A run whose training is done.

    Attributes:
        assembly: Its parts; the model has its best weights.
        history: What each epoch ended with.
        first: Whether this is the process that reports (the only one, unless several devices train together).
    """

    assembly: Assembly
    history: History
    first: bool


def train(config: Namespace, folder: RunFolder, *, resume: bool) -> Trained:
    """Train, or continue, into a run folder.

    Args:
        config: From ``schema.resolve``.
        folder: Its folder; new unless ``resume``.
        resume: Continue from the newest checkpoint.

    Raises:
        Interrupted: After Ctrl-C; the state is saved.
        ValueError: What a constructor or the trainer refuses.
    """
    device = choose_device(config.device)
    fabric = launch_fabric(
        accelerator=device.type,
        devices=config.devices if device.index is None else f"{device.index},",
        precision=config.precision,
        strategy=config.strategy,
    )
    assembly = assemble(config, device=fabric.device)
    parts, data = assembly.parts, assembly.data
    started = not resume and start(assembly.program, data, seed=config.seed)  # of all data, alike in each process
    if fabric.world_size > 1:
        data.train = Split(shard(fabric, data.train.x))
    if fabric.global_rank == 0:
        print(
            f"data:  {data.description}\nmodel: {config.model.class_path}, {_count(assembly.program):,} parameters",
            file=sys.stderr,
        )
        if started:
            print(f"start: {type(assembly.program).__name__}.start(training data, seed={config.seed})", file=sys.stderr)
    step = _step(assembly, config, fabric)
    history = parts.trainer.fit(
        step,
        data.batches(batch_size=config.batch_size, seed=config.seed + fabric.global_rank),
        folder=folder.path,
        validate=Validation(step.module, data.valid.x),
        config=yaml.safe_load(schema.dump(config)),
        resume=resume,
    )
    load_weights(folder.path, step.module)
    return Trained(assembly, history, fabric.global_rank == 0)


def _step(assembly: Assembly, config: Namespace, fabric: Any) -> GradientStep:  # noqa: ANN401 -- Lightning's
    parts, program = assembly.parts, assembly.program
    steps = parts.trainer.epochs * _steps_per_epoch(assembly.data, config.batch_size)
    compile = compiles(config.compile, steps=steps, device=fabric.device, processes=fabric.world_size)
    return gradient_step(
        program.model,
        program.guide,
        parts.bound,
        fabric=fabric,
        optimizer=parts.optimizer,
        scheduler=parts.scheduler,
        clip_norm=config.clip_norm,
        compile=compile,
    )


def start(program: nn.Module, data: Dataset, *, seed: int) -> bool:
    """Have a model start from the training data, if it has a method ``start(x, *, seed)`` for that.

    Args:
        program: The model.
        data: On its device; what is binarised anew in every epoch is binarised once for the start.
        seed: Seed of the start.

    Returns:
        Whether it has such a method.
    """
    begin = getattr(program, "start", None)
    if not callable(begin) or not {"x", "seed"} <= inspect.signature(begin).parameters.keys():
        return False
    anew = data.description.binarization == "dynamic"
    begin(next(iter(data.batches(batch_size=len(data.train), seed=seed))) if anew else data.train.x, seed=seed)
    return True


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Have torch use so many CPU threads for a while; small networks are fastest on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(trained: Trained, folder: RunFolder) -> None:
    """Measure the -ELBO of the best weights, draw the figures, write ``results.json``, say where all of it lies."""
    if not trained.first:
        return
    from pyro_dgm.cli.measure import measure

    start = time.monotonic()
    data, program = trained.assembly.data, trained.assembly.program
    found = {split: measure(program, getattr(data, split).x, num_samples=None) for split in ("valid", "test")}
    for split, measures in found.items():
        print(f"{split}: {measures.terms.negative_elbo}")
    if found["test"].units is not None:
        print(found["test"].units)
    finish(trained, folder, {split: measures.as_dict() for split, measures in found.items()}, start=start)
    print(f"run folder: {folder.path}")


def finish(trained: Trained, folder: RunFolder, measured: dict[str, object], *, start: float) -> None:
    """Draw the figures and write ``results.json``, last of all: it says that the run is complete.

    Args:
        trained: The run.
        folder: Its folder.
        measured: Numbers by split.
        start: When measuring began, by `time.monotonic`.
    """
    from pyro_dgm.cli.figures import draw_all

    history, assembly = trained.history, trained.assembly
    end = _warmup_end(assembly)
    for complaint in draw_all(assembly.program, assembly.data, folder.figures, history, warmup_end=end):
        print(complaint, file=sys.stderr)
    folder.add_results(
        {
            "data": str(assembly.data.description),
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "stopped": history.stopped,
            "seconds": {"fit": _seconds(folder), "evaluate": round(time.monotonic() - start, 1)},
            **measured,
        }
    )


def _warmup_end(assembly: Assembly) -> float | None:
    """The epoch at which the KL had its full weight first, None without warm-up."""
    warmup = assembly.parts.trainer.warmup
    if warmup.by_steps:
        return warmup.steps / _steps_per_epoch(assembly.data, assembly.parts.batch_size)
    return float(warmup.epochs) or None


def _steps_per_epoch(data: Dataset, batch_size: int) -> int:
    return len(data.batches(batch_size=batch_size))


def _seconds(folder: RunFolder) -> float:
    """Seconds of training, interruptions left out: the last that the trainer wrote down."""
    with (folder.path / "metrics.csv").open() as file:
        return max((float(row["seconds"]) for row in csv.DictReader(file)), default=0.0)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
