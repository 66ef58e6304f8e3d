# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Progress as plain lines, one per epoch and one every ten seconds, for log files and pipes."""

from pyro_dgm.train.reporter import Reporter, Status, TextFile


class PlainReporter(Reporter):
    """Write lines that can be searched and diffed.

    Args:
        file: Where to.
    """

    interval = 10.0

    def __init__(self, file: TextFile) -> None:
        self.file = file

    def say(self, text: str) -> None:
        """Print a sentence."""
        print(text, file=self.file, flush=True)

    def show(self, status: Status) -> None:
        """Print how far an epoch is."""
        place = [f"epoch {status.epoch}/{status.epochs}", f"step {status.step}/{status.steps}"]
        self.say("  ".join([*place, *status.losses(), *status.pace()]))

    def epoch(self, status: Status) -> None:
        """Print what an epoch has ended with."""
        self.say("  ".join([f"epoch {status.epoch}/{status.epochs} done", *status.losses(), *status.pace()]))
