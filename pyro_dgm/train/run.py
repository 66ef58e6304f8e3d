# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""All that changes while a model is trained, in one place, so that a run can be saved and continued to the bit."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.train import ranks
from pyro_dgm.train.checkpoint import Checkpoint
from pyro_dgm.train.clock import Clock
from pyro_dgm.train.early_stopping import EarlyStopping
from pyro_dgm.train.errors import CheckpointError
from pyro_dgm.train.history import History
from pyro_dgm.train.moving_average import ExponentialMovingAverage
from pyro_dgm.train.random_state import random_state, set_random_state
from pyro_dgm.train.step import Feed, Step
from pyro_dgm.train.warmup import Warmup
from pyro_dgm.train.window import Window


class Run:
    """A step, its feed, and what has been done with them so far.

    Args:
        step: The step to repeat.
        batches: What it is fed with.
        warmup: The schedule of the KL's weight.
        capacity: The schedule of the KL's target, ``step.capacity``.
        ema: Decay of the weights' moving average, or None for none.
        patience: Epochs without improvement before training stops, or None.
        log_every: Steps per row of metrics.

    Attributes:
        epochs: How many epochs are finished.
        steps: How many steps are done.
        batches_done: How many of them in the current epoch.
        best: The weights with the lowest validation loss, averaged ones if there are.
        totals: Sums of the current epoch's scalars, over the steps that have left the window.

    Raises:
        ValueError: If there are no batches, or a warm-up but no beta, or a schedule for a capacity that there is not.
    """

    def __init__(
        self,
        step: Step,
        batches: Feed,
        *,
        warmup: Warmup,
        ema: float | None,
        patience: int | None,
        log_every: int,
        capacity: Warmup | None = None,
    ) -> None:
        self.step, self.batches, self.module = step, batches, step.module
        self.beta: Tensor | None = getattr(step, "beta", None)
        self.capacity: Tensor | None = getattr(step, "capacity", None)
        if warmup and self.beta is None:
            raise ValueError(f"A warm-up was asked for, but {type(step).__name__} has no beta to weigh the KL with.")
        if capacity and self.capacity is None:
            raise ValueError(
                f"A rising capacity was asked for, but {type(step).__name__} has none: give the bound "
                f"kl=Capacity(...), or leave out capacity_epochs and capacity_steps."
            )
        pairs = ((warmup, self.beta), (capacity, self.capacity))
        self.schedules = [(rise, value, float(value)) for rise, value in pairs if rise and value is not None]
        if len(batches) == 0:
            raise ValueError("There are no batches: is batch_size larger than the data, with drop_last=True?")
        self.average = None if ema is None else ExponentialMovingAverage(self.module, ema)
        self.stopping, self.history = EarlyStopping(patience), History()
        self.window, self.clock = Window(log_every), Clock()
        self.epochs = self.steps = self.batches_done = 0
        self.totals: Tensor | None = None
        self.best: dict[str, Tensor] | None = None
        tensors = [*self.module.parameters(), *self.module.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")

    def feed(self) -> Iterator[Any]:
        """Iterate over what is left of the epoch, on the module's device."""
        itself = hasattr(self.batches, "load_state_dict")  # does it know where it was?
        for batch in islice(self.batches, 0 if itself else self.batches_done, None):
            yield batch.to(self.device, non_blocking=True) if isinstance(batch, Tensor) else batch

    def update(self, batch: Any) -> dict[str, Tensor]:
        """Do a step and count it."""
        for rise, value, full in self.schedules:
            value.fill_(full * rise.share(epoch=self.epochs + 1, step=self.steps + 1))
        values = self.step(batch)
        self.window.add(values)
        if self.average is not None:
            self.average.update()
        self.steps += 1
        self.batches_done += 1
        self.clock.count(len(batch) * ranks.size())
        return values

    @property
    def warm(self) -> bool:
        """Whether all schedules have come to their end, the last step included."""
        now = {"epoch": self.epochs + (self.batches_done > 0), "step": self.steps}
        return all(rise.finished(**now) for rise, _, _ in self.schedules)

    def fill(self) -> None:
        """Give whatever has a schedule its full value."""
        for _, value, full in self.schedules:
            value.fill_(full)

    def judge(self, loss: float) -> None:
        """Take in the validation loss after an epoch: keep the weights if it is the best, lose patience if not."""
        if self.stopping.update(loss, epoch=self.epochs):
            weights = self.module.state_dict() if self.average is None else self.average.weights()
            self.best = {name: value.detach().clone() for name, value in weights.items()}
            self.history.best_epoch, self.history.best_loss = self.epochs, loss

    def copies(self) -> dict[str, dict[str, Tensor]]:
        """Give the other weights that are saved: the average and the best ones, where there are such."""
        average = None if self.average is None else self.average.weights()
        return {name: weights for name, weights in (("averaged", average), ("best", self.best)) if weights is not None}

    def accumulate(self, rows: Tensor) -> None:
        """Move the window's rows into the epoch's sums."""
        self.totals = rows.sum(0) if self.totals is None else self.totals + rows.sum(0)
        self.window.clear()

    def finish_epoch(self) -> dict[str, float]:
        """Count the epoch, move the learning-rate schedule on, and give the means of the epoch's scalars."""
        totals = [] if self.totals is None else (self.totals / self.batches_done).tolist()
        self.epochs, self.batches_done, self.totals = self.epochs + 1, 0, None
        if hasattr(self.step, "epoch_end"):
            self.step.epoch_end()
        return dict(zip(self.window.names, totals, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Collect everything but the weights; to be called by all processes together."""
        mine = {"random": random_state(), "batches": _state(self.batches)}
        return {
            **{name: getattr(self, name) for name in ("epochs", "steps", "batches_done", "totals")},
            "seconds": self.clock.seconds,
            "window": self.window.state_dict(),
            "stopping": self.stopping.state_dict(),
            "history": self.history.state_dict(),
            "average": None if self.average is None else self.average.updates,
            "step": _state(self.step),
            "data": self._data(),
            "processes": ranks.gather(mine),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Args:
            checkpoint: Of a run with the same model, data and number of processes.

        Raises:
            CheckpointError: If it is of another model, other data or another format version.
        """
        state = checkpoint.restore(self.module)
        self._require("the feed", state["data"], self._data())
        self._require("the number of processes", len(state["processes"]), ranks.size())
        self._require("a moving average of the weights (ema)", state["average"] is not None, self.average is not None)
        if self.average is not None:
            self.average.load(checkpoint.weights("averaged"), updates=state["average"])
        for name in ("epochs", "steps", "batches_done", "totals"):
            setattr(self, name, state[name])
        self.window.load_state_dict(state["window"], device=self.device)
        self.stopping.load_state_dict(state["stopping"])
        self.history.load_state_dict(state["history"])
        self.clock = Clock(state["seconds"])
        if self.stopping.best_epoch is not None:
            self.best = {name: value.to(self.device) for name, value in checkpoint.weights("best").items()}
        mine = state["processes"][ranks.rank()]
        for owner, saved in ((self.step, state["step"]), (self.batches, mine["batches"])):
            if saved is not None:
                owner.load_state_dict(saved)  # type: ignore[union-attr]
        set_random_state(mine["random"])  # last, as loading may draw numbers

    def _data(self) -> dict[str, Any]:
        return {"batches": len(self.batches), "num_data": getattr(self.batches, "num_data", None)}

    def _require(self, what: str, saved: Any, here: Any) -> None:
        if saved != here:
            raise CheckpointError(
                f"The run cannot be continued with other settings: {what} was {saved} and is {here} now. Use those it "
                f"was started with (config.yaml in the run folder)."
            )


def _state(owner: Any) -> dict[str, Any] | None:
    return owner.state_dict() if hasattr(owner, "state_dict") else None
