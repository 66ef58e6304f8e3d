# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long every flow takes here and in Pyro, zuko, nflows and normflows, side by side in one run.

Two things are timed: value, log-determinant and the gradient of both with respect to every parameter, in the direction
that is one pass; and the inverse without gradients. Every round times a block of each library in turn; the table gives
medians of the rounds, and ours relative to the fastest other library and to Pyro.

    python -m benchmarks.flows --rounds 15
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.flow_peers import Entry, flows


def step(entry: Entry, x: Tensor) -> None:
    """Value, log-determinant and gradients."""
    for parameter in entry.module.parameters():
        parameter.grad = None
    y, logdet = entry.forward(x.clone())  # Pyro fails when the same tensor comes again
    if y.requires_grad or logdet.requires_grad:
        (y.sum() + logdet.sum()).backward()


@torch.no_grad()
def invert(entry: Entry, y: Tensor) -> None:
    """The inverse alone."""
    if entry.inverse is not None:
        entry.inverse(y.clone())  # a memory of the last pair must not answer


def repeats_for(action: Callable[[], None], seconds: float, device: str) -> int:
    """How often to repeat so that a block takes about so many seconds; this also warms up."""
    once = min(timed(action, 1, device) for _ in range(3)) / 1e3
    return max(1, min(200, int(seconds / once)))


def rounds_of(
    actions: dict[str, Callable[[], None]], rounds: int, seconds: float, device: str
) -> dict[str, list[float]]:
    repeats = {name: repeats_for(action, seconds, device) for name, action in actions.items()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(timed(action, repeats[name], device))
    return times


def measure(dim: int, batch: int, rounds: int, seconds: float, device: str, only: str) -> dict[str, dict]:
    """Time every flow of every library: ``{flow: {what: {library: [milliseconds]}}}``."""
    results = {}
    for name, libraries in flows(dim).items():
        if only.lower() not in name.lower():
            continue
        torch.manual_seed(0)
        x = torch.randn(batch, dim, device=device)
        entries = {library: make() for library, make in libraries.items()}
        for entry in entries.values():
            entry.module.to(device)
        steps = {library: partial(step, entry, x) for library, entry in entries.items()}
        inverses = {
            library: partial(invert, entry, x) for library, entry in entries.items() if entry.inverse is not None
        }
        results[name] = {"step": rounds_of(steps, rounds, seconds, device)}
        results[name]["inverse"] = rounds_of(inverses, max(3, rounds // 3), seconds, device)
    return results


def ratio(times: dict[str, list[float]], peers: list[str]) -> tuple[str, float] | None:
    """Our time over that of the fastest of some others, the median of the rounds' ratios."""
    there = [peer for peer in peers if peer in times]
    if not there or "pyro_dgm" not in times:
        return None
    best = min(there, key=lambda peer: median(times[peer]))
    return best, median(a / b for a, b in zip(times["pyro_dgm"], times[best], strict=True))


def table(results: dict[str, dict], what: str, title: str) -> Table:
    """Lay out one of the two things that were timed."""
    peers = ["pyro", "zuko", "nflows", "normflows"]
    rows = Table(title=title)
    for column in ("ms", "pyro_dgm", *peers, "to the best other", "Pyro to ours"):
        rows.add_column(column, justify="left" if column == "ms" else "right")
    for name, timings in results.items():
        times = timings[what]
        best, pyro = ratio(times, peers), ratio(times, ["pyro"])
        cells = [f"{median(times[library]):.3f}" if library in times else "" for library in ("pyro_dgm", *peers)]
        rows.add_row(name, *cells, f"{best[1]:.2f} ({best[0]})" if best else "", f"{1 / pyro[1]:.2f}" if pyro else "")
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time every flow: pyro_dgm, Pyro, zuko, nflows and normflows.")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="a block takes about that long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="only flows with this in their names")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = measure(options.dim, options.batch, options.rounds, options.seconds, options.device, options.only)
    setting = f"D = {options.dim}, batch {options.batch}, {options.device}, {options.threads} threads"
    console = Console(width=150)
    console.print(table(results, "step", f"value, log-determinant and gradients: {setting}, {options.rounds} rounds"))
    console.print(table(results, "inverse", f"inverse: {setting}"))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
