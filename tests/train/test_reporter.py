# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Progress: a bar on a terminal, plain lines elsewhere, with loss, nats, images/s and the time left in both."""

import io

import pytest
from rich.console import Console

from pyro_dgm.train.plain_reporter import PlainReporter
from pyro_dgm.train.reporter import Status, reporter
from pyro_dgm.train.rich_reporter import RichReporter

STATUS = Status(
    epoch=2, epochs=10, step=150, steps=1000, beta=0.25, loss=90.1, nats=101.25, valid=103.0,
    images_per_second=12345.6, seconds_left=3725.0,
)  # fmt: skip
WORDS = ["epoch 2/10", "loss 90.10", "nats 101.25", "valid 103.00", "beta 0.25", "12,346 images/s", "1:02:05 left"]


class Terminal(io.StringIO):
    """A text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines_hold_all_numbers():
    text = io.StringIO()
    with PlainReporter(text) as plain:
        plain.show(STATUS)
        plain.epoch(STATUS)
        plain.say("Hello [there].")
    lines = text.getvalue().splitlines()
    assert "step 150/1000" in lines[0]
    assert "done" in lines[1]
    assert lines[2] == "Hello [there]."
    assert all(word in line for word in WORDS for line in lines[:2])
    assert "\x1b" not in text.getvalue()


def test_the_bar_holds_all_numbers():
    text = io.StringIO()
    with RichReporter(console=Console(force_terminal=True, file=text, width=80)) as bar:
        bar.show(STATUS)
        bar.say("Hello [there].")
    assert all(word in text.getvalue() for word in [*WORDS, "Hello [there].", "━"])
    assert "\x1b[" in text.getvalue()


def test_what_is_unknown_is_left_out():
    status = Status(epoch=1, epochs=1, step=0, steps=1)
    assert status.losses() == []
    assert status.pace() == ["0 images/s", "-:--:-- left"]


@pytest.mark.parametrize(("file", "kind"), [(Terminal(), RichReporter), (io.StringIO(), PlainReporter)])
def test_the_output_decides(file, kind):
    assert isinstance(reporter(file), kind)
