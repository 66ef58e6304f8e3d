# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Trains in child processes and kills or interrupts them; test_kill.py runs it as a program and looks at what is left.

The children are forks of one process that has everything imported, as otherwise imports would take all the time.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from pyro_dgm.train import Interrupted
from tests.train.tiny import TinyFeed, TinyStep, tiny_trainer, tiny_validation


def train(folder: Path, *, epochs: int = 6, note: Callable[[int], None] = lambda step: None) -> None:
    """Train, or continue, and save after every second step: most of the time is spent on saving."""
    step = TinyStep(1)
    step.before = note
    trainer = tiny_trainer(epochs=epochs, warmup_epochs=1, checkpoint_every_steps=2)
    trainer.fit(step, TinyFeed(), folder=folder, validate=tiny_validation(step), resume=folder.exists())


def fork(action: Callable[[], None]) -> int:
    """Do something in a child process, which exits as a command line would."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        action()
        status = 0
    except Interrupted as stop:
        print(stop, file=sys.stderr, flush=True)
        status = stop.exit_code
    finally:
        os._exit(status)


def kill_until_done(folder: Path, *, seconds: float) -> int:
    """Kill children at random instants until one comes to its end, and count the kills.

    ``seconds`` is how long a whole run takes: children live for a small part of it, but longer and longer.
    """
    kills = 0
    while True:
        child = fork(lambda: train(folder))
        deadline = time.monotonic() + random.uniform(0.0, seconds / 8) * (1 + kills / 8)
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done and status:
                raise SystemExit(f"training failed with status {status}")
            if done:
                return kills
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


def kill_at_each_file_operation(folder: Path) -> int:
    """Have children kill themselves right before their nth touch of a file, for every n, then let others continue."""
    number = 0
    while True:
        run = folder / str(number)
        killed = os.waitstatus_to_exitcode(os.waitpid(fork(partial(train_and_die, run, number)), 0)[1])
        if killed == 0:
            return number
        if os.waitstatus_to_exitcode(os.waitpid(fork(partial(train, run, epochs=1)), 0)[1]) != 0:
            raise SystemExit(f"what was killed at file operation {number} cannot be continued")
        number += 1


def train_and_die(folder: Path, number: int) -> None:
    """Train for four steps, but kill this process at one of its file operations in the folder."""
    left = [number]

    def die(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and str(folder) in str(arguments[0]):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(die)
    train(folder, epochs=1)


def interrupt(folder: Path, signum: int) -> int:
    """Send a signal to a child in its seventh step, and give its exit status."""
    read, write = os.pipe()
    child = fork(lambda: train(folder, epochs=10_000, note=lambda step: os.write(write, b".") and None))
    for _ in range(7):
        os.read(read, 1)
    os.kill(child, signum)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    random.seed(0)
    root = Path(sys.argv[1])
    train(root / "first")  # imports what is imported late
    start = time.monotonic()
    train(root / "whole")
    found = {"kills": kill_until_done(root / "killed", seconds=time.monotonic() - start)}
    found |= {s.name: interrupt(root / s.name, s) for s in (signal.SIGINT, signal.SIGTERM)}
    os.fsync = lambda descriptor: None  # it is for power cuts, and would take most of the time of what follows
    train(root / "short", epochs=1)
    print(json.dumps(found | {"operations": kill_at_each_file_operation(root / "operations")}))
