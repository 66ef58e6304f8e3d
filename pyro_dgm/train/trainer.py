# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The trainer repeats a step for some epochs, and looks after time: schedules, files, interruptions, continuation."""

from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from pyro_dgm.train import ranks
from pyro_dgm.train.checkpoints import Checkpoints
from pyro_dgm.train.history import History
from pyro_dgm.train.interrupts import Interrupts
from pyro_dgm.train.loop import Loop, Validate
from pyro_dgm.train.metrics import Metrics
from pyro_dgm.train.reporter import Reporter, Silent, reporter
from pyro_dgm.train.run import Run
from pyro_dgm.train.run_folder import open_run_folder
from pyro_dgm.train.step import Feed, Step
from pyro_dgm.train.warmup import Shape, Warmup


class Trainer:
    """Settings of a training run.

    Args:
        epochs: How often to go through the data.
        warmup_epochs: Raise the KL's weight for so many epochs: epoch e, counted from 1, has the share
            e / warmup_epochs of the full weight (that is, of `step.beta` as it is given) if it rises linearly.
        warmup_steps: The same by steps. Give one or none of the two.
        warmup_shape: How the weight rises: ``"linear"``, ``"cosine"``, or ``"cyclic"``, again and again; see `Warmup`.
        warmup_cycles: How often, for a cyclic one.
        warmup_rise: Share of each cycle in which it rises, for a cyclic one; it is full for the rest.
        capacity_epochs: Raise the KL's target, `step.capacity`, linearly from 0 for so many epochs.
        capacity_steps: The same by steps. Give one or none of the two.
        patience: Stop after so many epochs without a lower validation loss; epochs within the warm-up do not count.
        ema: Decay of a moving average of the weights, e.g. 0.999; it is what is validated, and what is used in the end.
        seed: Seeds Torch's generators, from which Pyro draws, when a run begins; None leaves them as they are.
        log_every: Steps per row in metrics.csv; on an accelerator the host waits for it only that often.
        checkpoint_every_seconds: Save at the first step after so many seconds, so a kill costs no more than them; a
            new run is saved at once, and every run in the end. 30 keeps the cost below 1% where saving takes 0.3 s.
        checkpoint_every_steps: Save after every so many steps too.
        validate_args: Have Pyro check programs and distributions at every step; otherwise it does at the first one
            only, which finds most mistakes and costs nothing.
        tensorboard: Whether to write TensorBoard events next to metrics.csv.
        progress: Whether to show progress on standard error: a bar on a terminal, lines elsewhere.

    Raises:
        ValueError: If a setting is out of its range, or a schedule is longer than training.
    """

    def __init__(
        self,
        *,
        epochs: int = 100,
        warmup_epochs: int | float | None = None,
        warmup_steps: int | None = None,
        warmup_shape: Shape = "linear",
        warmup_cycles: int = 4,
        warmup_rise: int | float = 0.5,
        capacity_epochs: int | float | None = None,
        capacity_steps: int | None = None,
        patience: int | None = None,
        ema: float | None = None,
        seed: int | None = 0,
        log_every: int = 50,
        checkpoint_every_seconds: int | float = 30,
        checkpoint_every_steps: int | None = None,
        validate_args: bool = False,
        tensorboard: bool = True,
        progress: bool = True,
    ) -> None:
        counts = {"epochs": epochs, "log_every": log_every, "patience": patience}
        for name, value in {**counts, "checkpoint_every_steps": checkpoint_every_steps}.items():
            if value is not None and value < 1:
                raise ValueError(f"Trainer got {name}={value}: it must be at least 1.")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"Trainer got ema={ema}: the decay must lie between 0 and 1, e.g. 0.999.")
        self.warmup = Warmup(
            epochs=warmup_epochs, steps=warmup_steps, shape=warmup_shape, cycles=warmup_cycles, rise=warmup_rise
        )
        self.capacity = Warmup(epochs=capacity_epochs, steps=capacity_steps, option="capacity")
        for rise in (self.warmup, self.capacity):
            rise.require_shorter_than(epochs=epochs)
        self.epochs, self.patience, self.ema, self.seed, self.log_every = epochs, patience, ema, seed, log_every
        self.checkpoint_every_seconds, self.checkpoint_every_steps = checkpoint_every_seconds, checkpoint_every_steps
        self.validate_args, self.tensorboard, self.progress = validate_args, tensorboard, progress

    def fit(
        self,
        step: Step,
        batches: Feed,
        *,
        folder: str | PathLike[str],
        validate: Validate | None = None,
        config: dict[str, Any] | None = None,
        resume: bool = False,
    ) -> History:
        """Train, and leave in the run folder metrics, checkpoints and the configuration.

        A resumed run goes on to the bit: it ends with the weights and the metrics that it would have had without the
        interruption, on the same kind of machine with the same number of threads.

        Args:
            step: What to repeat, e.g. a `pyro_dgm.infer.GradientStep`. In the end its module has the last weights,
                averaged if ``ema`` is set; `load_weights` gives the best ones.
            batches: What to feed it with, e.g. `pyro_dgm.data.Batches`.
            folder: The run folder; it must not exist yet, unless ``resume`` is set.
            validate: Gives scalars in nats per datum, ``loss`` among them, e.g. a `Validation`. The epoch after warm-up
                with the lowest loss is kept as the best; without validation none is.
            config: Plain data for ``config.yaml``, written when the run begins.
            resume: Continue the folder's run from its newest undamaged checkpoint.

        Returns:
            The history of all epochs, those before a continuation included.

        Raises:
            ValueError: If the warm-up is longer than training, or ``patience`` is set without ``validate``.
            FileExistsError: If the folder exists and ``resume`` is not set; `FileNotFoundError` the other way around.
            CheckpointError: If the run's checkpoints are of another model, feed or format version, or all damaged.
            Interrupted: After Ctrl-C or a termination signal; the step was finished and the state saved.
            NonFiniteLoss: If a loss, a gradient norm or a weight becomes NaN or infinite.
            OSError: If a file cannot be written, e.g. as the disk is full; the last checkpoint is intact then.
        """
        folder = Path(folder)
        if self.patience is not None and validate is None:
            raise ValueError(f"patience={self.patience} needs a validation loss to watch: give validate= too.")
        for rise in (self.warmup, self.capacity):
            rise.require_shorter_than(epochs=self.epochs, steps=self.epochs * len(batches))
        ranks.on_first(lambda: open_run_folder(folder, config, resume=resume))
        run = Run(
            step,
            batches,
            warmup=self.warmup,
            capacity=self.capacity,
            ema=self.ema,
            patience=self.patience,
            log_every=self.log_every,
        )
        store = Checkpoints(folder / "checkpoints")
        with self._reporter() as shown:
            self._begin(run, store, shown, resume=resume)
            if not self._finished(run):
                self._train(run, store, shown, validate)
            else:
                shown.say(f"The run {folder} is finished: {run.epochs} epochs, stopped by {run.history.stopped}.")
        if run.average is not None:
            run.average.apply()
        return run.history

    def _begin(self, run: Run, store: Checkpoints, shown: Reporter, *, resume: bool) -> None:
        """Seed a new run, or restore an old one."""
        found = ranks.on_first(store.latest) if resume else None
        if found is not None:
            run.restore(found)
            shown.say(f"Continuing after step {run.steps} from {found.path}.")
        else:
            if resume:
                shown.say(f"{store.folder} holds no checkpoint yet: starting from the beginning.")
            if self.seed is not None:
                torch.manual_seed(self.seed + ranks.rank())
        ranks.on_first(lambda: store.tidy(found))

    def _finished(self, run: Run) -> bool:
        return run.epochs >= self.epochs or run.stopping.exhausted

    def _train(self, run: Run, store: Checkpoints, shown: Reporter, validate: Validate | None) -> None:
        with ExitStack() as stack:
            interrupts = stack.enter_context(Interrupts())
            metrics = None
            if ranks.rank() == 0:
                made = Metrics(store.folder.parent, step=run.steps, tensorboard=self.tensorboard)
                metrics = stack.enter_context(made)
            stack.callback(run.fill)
            Loop(
                run,
                store=store,
                metrics=metrics,
                reporter=shown,
                interrupts=interrupts,
                validate=validate,
                epochs=self.epochs,
                save_seconds=self.checkpoint_every_seconds,
                save_steps=self.checkpoint_every_steps,
                check_all=self.validate_args,
            ).train()

    def _reporter(self) -> Reporter:
        return reporter() if self.progress and ranks.rank() == 0 else Silent()
