# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Turns Ctrl-C and termination signals into a flag that training looks at between two steps."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what kill, batch systems and containers send


class Interrupts:
    """Within this context a first signal only sets `signum`; one more, a second or more later, acts as it would have.

    Launchers often pass on a Ctrl-C that the terminal has sent to their child already, hence the second. Outside the
    main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._noted = 0.0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self._noted = signum, time.monotonic()
        elif time.monotonic() - self._noted > 1.0:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)
        self._old = {}
