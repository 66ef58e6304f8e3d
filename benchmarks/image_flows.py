# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long flows of images take here, in normflows, in Pyro and in plain PyTorch by hand, and how much they keep.

Three tables of one run: a 1x1 convolution; a Glow that scores, samples and takes a training step; the memory and time
of a training step over depth, with activations kept and computed again (``reversible=True``). Every round times a block
of each in turn; the tables give medians of the rounds, and ratios as medians of the rounds' ratios. Memory is what is
alive at the peak of a gradient, of all that was made since the step began, less the gradients themselves.

    python -m benchmarks.image_flows --rounds 15
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.flows import rounds_of
from benchmarks.image_flow_peers import Glows, Peer, Size, by_hand, convolutions, of_normflows, ours
from benchmarks.live_bytes import LiveBytes

Times = dict[str, list[float]]


def forget(module: nn.Module) -> None:
    """Let go of the gradients."""
    for parameter in module.parameters():
        parameter.grad = None


def step_of(peer: Peer, optimiser: torch.optim.Optimizer, x: Tensor) -> None:
    """One training step."""
    forget(peer.module)
    (-peer.score(x.clone()).mean()).backward()  # a memory of the last pair must not answer
    optimiser.step()


@torch.no_grad()
def score_of(peer: Peer, x: Tensor) -> None:
    """Score a batch without gradients."""
    peer.score(x.clone())


def gradient_of(module: nn.Module, value: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The gradient of a value with respect to input and weights."""
    forget(module)
    value(x.detach().requires_grad_()).backward()


@torch.no_grad()
def map_of(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """A map without gradients."""
    function(x.clone())


def measure_convolutions(options: argparse.Namespace) -> dict[str, Times]:
    """Time a 1x1 convolution of 16 images of 48 channels: ``{what: {library: [milliseconds]}}``."""
    shape = (48, 16, 16)
    x = torch.randn(16, *shape, device=options.device)
    peers = convolutions(shape)
    for module, _, _ in peers.values():
        module.to(options.device)
    run = partial(rounds_of, rounds=options.rounds, seconds=options.seconds, device=options.device)
    return {
        "value and log-determinant": run({name: partial(map_of, value, x) for name, (_, value, _) in peers.items()}),
        "with gradients": run({name: partial(gradient_of, m, value, x) for name, (m, value, _) in peers.items()}),
        "inverse": run({name: partial(map_of, back, x) for name, (_, _, back) in peers.items()}),
    }


def ready(peers: Glows, x: Tensor) -> dict[str, torch.optim.Optimizer]:
    """Take the first two steps, in which every ActNorm begins and the optimiser makes its tensors."""
    optimisers = {}
    for name, peer in peers.items():
        peer.module.to(x.device)
        optimisers[name] = torch.optim.Adam(peer.module.parameters(), lr=1e-4)
        for _ in range(2):
            step_of(peer, optimisers[name], x)
    return optimisers


def measure_glows(size: Size, options: argparse.Namespace) -> dict[str, Times]:
    """Time a Glow of every library: ``{what: {library: [milliseconds]}}``."""
    x = torch.rand(options.batch, *size.shape, device=options.device)
    peers = {
        "pyro_dgm": ours(size),
        "reversible": ours(size, reversible=True),
        "normflows": of_normflows(size),
        "by hand": by_hand(size),
    }
    optimisers = ready(peers, x)
    run = partial(rounds_of, rounds=options.rounds, seconds=options.seconds, device=options.device)
    return {
        "score": run({name: partial(score_of, peer, x) for name, peer in peers.items()}),
        "sample": run({name: partial(map_of, lambda y, p=peer: p.sample(len(y)), x) for name, peer in peers.items()}),
        "training step": run({name: partial(step_of, peer, optimisers[name], x) for name, peer in peers.items()}),
    }


def peak_of(peer: Peer, x: Tensor) -> float:
    """Megabytes alive at the peak of a gradient, less the gradients."""
    forget(peer.module)
    gradients = sum(parameter.nbytes for parameter in peer.module.parameters() if parameter.requires_grad)
    if x.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        (-peer.score(x.clone()).mean()).backward()
        return (torch.cuda.max_memory_allocated() - before - gradients) / 1e6
    with LiveBytes() as live:
        (-peer.score(x.clone()).mean()).backward()
    return (live.peak - gradients) / 1e6


def measure_depths(size: Size, options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Peak memory and time of a training step over depth, with one scale."""
    results = {}
    for depth in options.depths:
        x = torch.rand(options.batch, *size.shape, device=options.device)
        deep = size._replace(scales=1, depth=depth)
        peers = {"kept": ours(deep), "reversible": ours(deep, reversible=True)}
        optimisers = ready(peers, x)
        actions = {name: partial(step_of, peer, optimisers[name], x) for name, peer in peers.items()}
        results[depth] = {
            "megabytes": {name: peak_of(peer, x) for name, peer in peers.items()},
            "milliseconds": rounds_of(actions, max(3, options.rounds // 2), options.seconds, options.device),
        }
    return results


def ratio(times: Times, one: str, other: str) -> str:
    return f"{median(a / b for a, b in zip(times[one], times[other], strict=True)):.2f}"


def times_table(title: str, results: dict[str, Times]) -> Table:
    """Lay out times of every library, and ours as a multiple of each of the others."""
    names = list(next(iter(results.values())))
    table = Table(title=title)
    for column in ("ms", *names, *(f"ours / {name}" for name in names[1:])):
        table.add_column(column, justify="left" if column == "ms" else "right")
    for what, times in results.items():
        ratios = [ratio(times, names[0], name) for name in names[1:]]
        table.add_row(what, *(f"{median(times[name]):.3f}" for name in names), *ratios)
    return table


def depths_table(title: str, results: dict[int, dict[str, Any]]) -> Table:
    """Lay out memory and time over depth."""
    table = Table(title=title)
    for column in ("depth", "MB kept", "MB reversible", "ms kept", "ms reversible", "time ratio"):
        table.add_column(column, justify="right")
    for depth, found in results.items():
        megabytes, times = found["megabytes"], found["milliseconds"]
        cells = [f"{megabytes[name]:.2f}" for name in megabytes] + [f"{median(times[name]):.1f}" for name in megabytes]
        table.add_row(str(depth), *cells, ratio(times, "reversible", "kept"))
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time flows of images: pyro_dgm, normflows, Pyro and plain PyTorch.")
    parser.add_argument("--shape", type=int, nargs=3, default=(3, 16, 16))
    parser.add_argument("--scales", type=int, default=2)
    parser.add_argument("--depth", type=int, default=8, help="steps at each scale")
    parser.add_argument("--depths", type=int, nargs="*", default=(8, 16, 32, 64), help="for memory over depth")
    parser.add_argument("--hidden", type=int, default=64, help="channels of the couplings' networks")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1, help="a block takes about that long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    size = Size(tuple(options.shape), options.scales, options.depth, options.hidden)
    results: dict[str, Any] = {"1x1 convolution": measure_convolutions(options), "Glow": measure_glows(size, options)}
    results["depth"] = measure_depths(size, options)
    setting = f"{options.device}, {options.threads} threads, {options.rounds} rounds"
    console = Console(width=150)
    console.print(times_table(f"1x1 convolution of 16 x 48 x 16 x 16: {setting}", results["1x1 convolution"]))
    what = f"{size.scales} x {size.depth} steps, {size.hidden} channels, {options.batch} images of {size.shape}"
    console.print(times_table(f"Glow, {what}: {setting}", results["Glow"]))
    console.print(depths_table(f"training step, one scale: {setting}", results["depth"]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
