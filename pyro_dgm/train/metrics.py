# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Writes a run's numbers to metrics.csv, and to TensorBoard for those who like to watch."""

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyro_dgm.train.durable import explained, replace_file

FIXED = ("step", "epoch", "split")
TIMES = ("seconds", "images_per_second")
"""Columns that differ between two runs that are otherwise the same to the bit."""

INTERVAL = 10.0  # seconds that a row may wait for: writing each at once would slow down short steps


class Metrics:
    """The files ``metrics.csv`` and ``events.*`` of a run folder; a context manager.

    A row holds a step, its epoch, a split and values: ``train`` rows are means over the steps since the row before,
    ``valid`` rows are of the whole validation set. Values are in nats per datum.

    Args:
        folder: The run folder.
        step: Continue after this step: rows of later steps, which a killed run may have left, are dropped.
        tensorboard: Whether to write events too.

    Raises:
        OSError: If it cannot be written, here and in the methods.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        self.folder, self.path = folder, folder / "metrics.csv"
        self._columns, self._rows = [*FIXED, *TIMES], ""
        self._events: Any = None
        self._flushed = time.monotonic()
        with self._explained():
            kept = _rows_until(self.path, step)
            if kept:
                self._columns = list(kept[0])
            replace_file(self.path, self._format(kept, header=True).encode())
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def row(
        self, split: str, *, step: int, epoch: int, values: Mapping[str, float], times: Mapping[str, float]
    ) -> None:
        """Add a row; it reaches the disk within seconds, or with `flush`.

        Args:
            split: ``"train"`` or ``"valid"``.
            step: How many steps are done.
            epoch: The epoch, counted from 1.
            values: Columns by name; new names make new columns.
            times: Values for the columns of `TIMES`.
        """
        record = {"step": step, "epoch": epoch, "split": split, **times, **values}
        new = [name for name in record if name not in self._columns]
        if new:
            self._widen(new)
        self._rows += self._format([record], header=False)
        if self._events is not None:
            with self._explained():
                for name, value in [*values.items(), *times.items()]:
                    self._events.add_scalar(f"{split}/{name}", value, step)
        if time.monotonic() - self._flushed > INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Write what has been added."""
        with self._explained():
            if self._rows:
                with self.path.open("a", newline="") as file:
                    file.write(self._rows)
                self._rows = ""
            self._flushed = time.monotonic()
            if self._events is not None:
                self._events.flush()

    def _widen(self, names: list[str]) -> None:
        self.flush()
        with self._explained():
            kept = _rows_until(self.path, None)
            self._columns += names
            replace_file(self.path, self._format(kept, header=True).encode())

    def _format(self, records: list[dict[str, Any]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(records)  # floats as their repr, which is exact
        return text.getvalue()

    def _explained(self) -> Any:
        advice = "Make room or permit writing, then continue from the last checkpoint with --resume."
        return explained(self.folder, advice)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except OSError:
            if error is None:
                raise  # an error that is on its way says more than this one
        finally:
            if self._events is not None:
                self._events.close()


def _rows_until(path: Path, step: int | None) -> list[dict[str, Any]]:
    """Read the complete rows up to a step; a killed run may have left half a line."""
    if not path.exists():
        return []
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(io.StringIO(complete)) if step is None or int(row["step"]) <= step]
