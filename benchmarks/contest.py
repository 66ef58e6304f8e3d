# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Ways of doing one thing, side by side in one run: their times as ratios with spread, and the memory that each takes.

Every round times a block of each way in turn, so that whatever else the machine does hits all alike. A ratio is the
median of the rounds' ratios, with quartiles. Memory is the most that was allocated at once during a call, beyond what
was there before it; the allocator counts it, whoever allocates.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler tells when it starts and stops, otherwise

import torch
from rich.table import Table

from benchmarks.flows import rounds_of

Ways = dict[str, Callable[[], object]]
Figures = dict[str, dict[str, Any]]


def peak_megabytes(action: Callable[[], object], device: str) -> float:
    """Measure how much more memory than before is in use at the peak of a call."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 1e6


def contest(ways: Ways, *, base: str, rounds: int, seconds: float, device: str) -> Figures:
    """Time ways, and lay their figures out by name, with the ratio of each to one of them."""
    times = rounds_of(ways, rounds, seconds, device)  # type: ignore[arg-type]
    quartiles = torch.tensor([0.25, 0.5, 0.75])
    figures = {}
    for name, row in times.items():
        low, middle, high = torch.quantile(torch.tensor(row) / torch.tensor(times[base]), quartiles).tolist()
        figures[name] = {
            "ms": torch.tensor(row).median().item(),
            "ratio": middle,
            "ratio_25": low,
            "ratio_75": high,
            "megabytes": peak_megabytes(ways[name], device),
            "base": base,
            "rounds": rounds,
        }
    return figures


def options(description: str, arguments: list[str] | None, *, rounds: int, seconds: float) -> argparse.Namespace:
    """Read the options that all contests have, and set the number of threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", default="", help="only what has this in its name")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="a block takes about that long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    found = parser.parse_args(arguments)
    torch.set_num_threads(found.threads)
    return found


def table(title: str, figures: Figures) -> Table:
    """Lay figures out for a terminal."""
    base = next(iter(figures.values()))["base"]
    rows = Table(title=title)
    for column in ("", "ms", f"ratio to {base}", "quartiles", "MB"):
        rows.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, row in figures.items():
        spread = f"{row['ratio_25']:.2f} ... {row['ratio_75']:.2f}"
        rows.add_row(name, f"{row['ms']:.2f}", f"{row['ratio']:.2f}", spread, f"{row['megabytes']:.1f}")
    return rows


def save(path: Path | None, results: object) -> None:
    """Write figures to a file, if one is wanted."""
    if path is not None:
        path.write_text(json.dumps(results, indent=2))
