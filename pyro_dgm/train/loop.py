# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The loop of training: steps, and between them what is logged, validated, shown and saved."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import NoReturn

import pyro
import torch
from torch import Tensor

from pyro_dgm.train import ranks
from pyro_dgm.train.blame import blame, first_non_finite
from pyro_dgm.train.checkpoint import Checkpoint
from pyro_dgm.train.checkpoints import Checkpoints
from pyro_dgm.train.errors import Interrupted, NonFiniteLoss
from pyro_dgm.train.interrupts import Interrupts
from pyro_dgm.train.metrics import Metrics
from pyro_dgm.train.reporter import Reporter, Status
from pyro_dgm.train.run import Run
from pyro_dgm.train.warmup import full_weight

Validate = Callable[[], Mapping[str, Tensor | int | float]]


class Loop:
    """Trains a run to its end, or until it is interrupted.

    Args:
        run: What to train.
        store: Where to save.
        metrics: Where to write numbers; None in all processes but the first.
        reporter: Where to show numbers.
        interrupts: Tells when to stop early.
        validate: Gives the validation loss, or None.
        epochs: How many epochs to train in all.
        save_seconds: Save at the first step after so many seconds; in the beginning and in the end in any case.
        save_steps: Save after every so many steps too, or None.
        check_all: Whether Pyro checks distributions and programs at every step, instead of at the first one only.
    """

    def __init__(
        self,
        run: Run,
        *,
        store: Checkpoints,
        metrics: Metrics | None,
        reporter: Reporter,
        interrupts: Interrupts,
        validate: Validate | None,
        epochs: int,
        save_seconds: int | float,
        save_steps: int | None,
        check_all: bool,
    ) -> None:
        self.run, self.store, self.metrics, self.reporter, self.interrupts = run, store, metrics, reporter, interrupts
        self.validate, self.epochs, self.save_seconds, self.save_steps = validate, epochs, save_seconds, save_steps
        self.check_all = check_all
        self._watch_each = run.device.type == "cpu" and ranks.size() == 1  # elsewhere looking at a loss would stall
        self._valid = run.history.epochs[-1].get("valid.loss") if run.history.epochs else None
        self._shown = self._saved_at = time.monotonic()
        self._saved: Checkpoint | None = None

    def train(self) -> None:
        """Repeat until all epochs are done or patience is at its end.

        Raises:
            Interrupted: After a signal; the state is saved.
            NonFiniteLoss: If a loss, a gradient norm or a weight is NaN or infinite.
            OSError: If a file cannot be written.
        """
        run = self.run
        with pyro.validation_enabled(is_validate=True):  # for the first step; restored at the end
            self._save()
            while run.epochs < self.epochs and not run.stopping.exhausted:
                for batch in run.feed():
                    values = run.update(batch)
                    pyro.enable_validation(self.check_all)
                    self._after_step(values)
                self._end_epoch()

    def _after_step(self, values: Mapping[str, Tensor]) -> None:
        run = self.run
        if self._watch_each and not math.isfinite(values["loss"].detach()):
            self._require_finite_window()
        if run.window.full:
            self._log()
        if time.monotonic() - self._shown > self.reporter.interval:
            self._show(self.reporter.show)
        if run.batches_done < len(run.batches):  # else the end of the epoch comes at once
            self._save_if_due(*self._asked())

    def _end_epoch(self) -> None:
        run, warm, lr = self.run, self.run.warm, getattr(self.run.step, "lr", None)
        if run.window.filled:
            self._log()
        record: dict[str, int | float] = {"epoch": run.epochs + 1, "step": run.steps, **self._weights_now(lr)}
        train = run.finish_epoch()
        valid = self._validation()
        record |= {f"train.{name}": value for name, value in train.items()}
        record |= {f"valid.{name}": value for name, value in valid.items()}
        run.history.epochs.append(record)
        if warm and valid:
            run.judge(valid["loss"])
        run.history.stopped = "patience" if run.stopping.exhausted else "epochs" if run.epochs >= self.epochs else None
        self._show(self.reporter.epoch, values=train)
        self._save_if_due(*self._asked(now=True))

    def _log(self) -> None:
        """Move the window's rows to the metrics and the epoch's sums."""
        run, rows = self.run, self._require_finite_window()
        if self.metrics is not None:
            values = dict(zip(run.window.names, rows.mean(0).tolist(), strict=True))
            values |= self._weights_now(getattr(run.step, "lr", None))
            self._write("train", epoch=run.epochs + 1, values=values)
        run.accumulate(rows)

    def _validation(self) -> dict[str, float]:
        """Validate the averaged weights, if there are such, in evaluation mode and at beta = 1."""
        run = self.run
        if self.validate is None:
            return {}
        modes = {module: module.training for module in run.module.modules()}
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(full_weight(run.beta))
            if run.average is not None:
                stack.enter_context(run.average.applied())
            run.module.eval()
            try:
                values = {name: float(value) for name, value in self.validate().items()}
            finally:
                for module, training in modes.items():
                    module.training = training
        values = ranks.gather(values)[0]
        if not math.isfinite(values["loss"]):
            self._fail(f"the validation loss is {values['loss']}", run.steps, values)
        self._valid = values["loss"]
        self._write("valid", epoch=run.epochs, values=values)
        return values

    def _save_if_due(self, signum: int | None, late: bool) -> None:  # noqa: FBT001 - given by _asked
        """Save after a signal, when it is time, and in the end."""
        run = self.run
        at_step = self.save_steps is not None and run.steps % self.save_steps == 0
        if signum is not None or late or at_step or run.history.stopped:
            self._save()
        if signum is not None and not run.history.stopped:
            path = self.store.folder if self._saved is None else self._saved.path
            raise Interrupted(signum, step=run.steps, checkpoint=path)

    def _save(self) -> None:
        """Save the run, if its numbers are finite."""
        run = self.run
        self._require_finite_window()
        bad = first_non_finite(run.module.state_dict())
        if bad:
            self._fail(f"the weights {bad[0]} are not finite", run.steps, {})
        state, copies = run.state_dict(), run.copies()

        def write() -> Checkpoint:
            if self.metrics is not None:
                self.metrics.flush()  # before the checkpoint, so that a run continued from it has the rows
            return self.store.save(run.steps, run.module, state, copies)

        self._saved = ranks.on_first(write)
        self._saved_at = time.monotonic()

    def _require_finite_window(self) -> Tensor:
        run = self.run
        rows = ranks.mean(run.window.read())
        bad = run.window.first_bad(rows) if len(rows) else None
        if bad is not None:
            values = dict(zip(run.window.names, rows[bad].tolist(), strict=True))
            what = "loss" if not math.isfinite(values["loss"]) else "grad_norm"
            self._fail(f"the {what} is {values[what]}", run.steps - len(rows) + 1 + bad, values)
        return rows

    def _fail(self, what: str, step: int, values: Mapping[str, float]) -> NoReturn:
        checkpoint = None if self._saved is None else self._saved.path
        raise NonFiniteLoss(what, step=step, site=blame(values, self.run.module), checkpoint=checkpoint)

    def _asked(self, *, now: bool = False) -> tuple[int | None, bool]:
        """Tell which signal has come, and whether it is time to save; several processes agree now and then."""
        mine = self.interrupts.signum, time.monotonic() - self._saved_at >= self.save_seconds
        if ranks.size() == 1:
            return mine
        if not now and self.run.steps % self.run.window.length:
            return None, False
        signals, late = zip(*ranks.gather(mine), strict=True)
        return next((signum for signum in signals if signum is not None), None), late[0]

    def _weights_now(self, lr: float | None) -> dict[str, float]:
        known = {"beta": self.run.beta, "capacity": self.run.capacity, "lr": lr}
        return {name: float(value) for name, value in known.items() if value is not None}

    def _write(self, split: str, *, epoch: int, values: Mapping[str, float]) -> None:
        if self.metrics is not None:
            clock = self.run.clock
            speed = clock.images_per_second("metrics")
            times = {"seconds": round(clock.seconds, 3), "images_per_second": round(speed, 1)}
            self.metrics.row(split, step=self.run.steps, epoch=epoch, values=values, times=times)

    def _show(self, how: Callable[[Status], None], *, values: Mapping[str, float] | None = None) -> None:
        run = self.run
        values = run.window.latest() if values is None else values
        terms = [-v if n.startswith("log_p.") else v for n, v in values.items() if n.startswith(("log_p.", "log_q."))]
        total = self.epochs * len(run.batches)
        how(
            Status(
                epoch=run.epochs + (run.batches_done > 0),
                epochs=self.epochs,
                step=run.steps,
                steps=total,
                beta=self._weights_now(None).get("beta"),
                loss=values.get("loss"),
                nats=sum(terms) if terms else None,
                valid=self._valid,
                images_per_second=run.clock.images_per_second("reporter"),
                seconds_left=run.clock.seconds_left(total - run.steps),
            )
        )
        self._shown = time.monotonic()
