# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Write the page of figures, benchmarks/README.md, from what the benchmarks have measured.

    python -m benchmarks.page FOLDER

FOLDER holds the JSON files that ``python -m benchmarks --folder FOLDER`` leaves there.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

PAGE = Path(__file__).parent / "README.md"
HEAD = """# Figures

Made by `make bench`. Each row is a ratio of times measured in one run: the ways take turns, round by round; the ratio
is the median of the rounds' ratios, with quartiles. Below 1 is faster than what it is compared with. Memory is the most
that was allocated at once during a step, beyond weights and optimiser. Times of a CPU that other programs share say
little by themselves, so none are given.

"""


def of_contests(results: dict[str, Any]) -> Iterator[str]:
    """Lay out what `benchmarks.contest` measured, a table for each contest."""
    for name, figures in results.items():
        base = next(iter(figures.values()))["base"]
        rounds = next(iter(figures.values()))["rounds"]
        yield f"### {name}\n"
        yield f"| way | time, to that of {base} | quartiles | memory, MB |\n|---|---|---|---|"
        for way, row in figures.items():
            spread = "" if way == base else f"{row['ratio_25']:.2f} ... {row['ratio_75']:.2f}"
            yield f"| {way} | {row['ratio']:.2f} | {spread} | {row['megabytes']:.1f} |"
        yield f"\n{rounds} rounds.\n"


def of_times(title: str, times: dict[str, list[float]], base: str) -> Iterator[str]:
    """Lay out lists of times as ratios to one of them."""
    yield f"### {title}\n"
    yield f"| way | time, to that of {base} | quartiles |\n|---|---|---|"
    for way, row in times.items():
        low, middle, high = _quartiles(row, times[base])
        yield f"| {way} | {middle:.2f} | {'' if way == base else f'{low:.2f} ... {high:.2f}'} |"
    yield f"\n{len(times[base])} rounds.\n"


def of_peers(title: str, results: dict[str, Any], what: str) -> Iterator[str]:
    """Lay out times of ours and of other libraries as ratios of ours to each."""
    peers = list(dict.fromkeys(peer for found in results.values() for peer in found[what] if peer != "pyro_dgm"))
    yield f"### {title}\n"
    yield f"| flow | {' | '.join(f'to {peer}' for peer in peers)} |\n|---|{'---|' * len(peers)}"
    for name, found in results.items():
        cells = []
        for peer in peers:
            if peer in found[what] and "pyro_dgm" in found[what]:
                low, middle, high = _quartiles(found[what]["pyro_dgm"], found[what][peer])
                cells.append(f"{middle:.2f} ({low:.2f} ... {high:.2f})")
            else:
                cells.append("")
        if any(cells):
            yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _quartiles(row: list[float], base: list[float]) -> tuple[float, float, float]:
    ratios = [a / b for a, b in zip(row, base, strict=True)]
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def sections(folder: Path) -> Iterator[str]:
    """Lay out whatever of the figures there is."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if "compiled_step" in found:
        yield "## A training step\n"
        yield from of_contests(found["compiled_step"])
    if "growth" in found:
        yield "## How cost grows\n"
        yield from of_contests(found["growth"])
    if "importance_sampling" in found:
        yield "## Evaluation\n"
        title = "NLL of an image by importance sampling, 5000 samples"
        yield from of_times(title, found["importance_sampling"], "plain PyTorch, hand-written")
    if "flows" in found:
        yield "## Flows\n"
        yield from of_peers("Value, log-determinant and gradients, D = 64, batch 100", found["flows"], "step")
        yield from of_peers("Inverse", found["flows"], "inverse")


def machine(device: str) -> str:
    """Say where it was measured."""
    card = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads{card}; torch {torch.__version__.split('+')[0]}."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write benchmarks/README.md.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    PAGE.write_text(HEAD + machine(options.device) + "\n\n" + "\n".join(sections(options.folder)))
    print(f"{PAGE} is written.")


if __name__ == "__main__":
    main()
