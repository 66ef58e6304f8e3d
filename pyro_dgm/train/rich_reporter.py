# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Progress as a bar that is redrawn in place, for terminals."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pyro_dgm.train.reporter import Reporter, Status, TextFile


class RichReporter(Reporter):
    """Draw one bar over all epochs with the pace behind it and the newest losses below.

    Args:
        file: The terminal.
        console: A console to use instead.
    """

    interval = 0.25

    def __init__(self, file: TextFile | None = None, *, console: Console | None = None) -> None:
        self.console = Console(file=file) if console is None else console
        self.live = Live(console=self.console, auto_refresh=False)  # drawn when told to: no second thread

    def say(self, text: str) -> None:
        """Print a sentence above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """Redraw the bar."""
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=status.steps, completed=status.step, width=20)
        line.add_row(f"epoch {status.epoch}/{status.epochs}", bar, *status.pace())
        self.live.update(Group(line, Text("  ".join(status.losses()))), refresh=True)

    def epoch(self, status: Status) -> None:
        """Redraw the bar with what an epoch has ended with."""
        self.show(status)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
