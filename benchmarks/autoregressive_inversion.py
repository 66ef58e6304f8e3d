# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long an affine autoregressive flow takes to invert here, in Pyro and in zuko, side by side in one run.

The inverse of the direction that is one pass, for a batch of 256 in float32: 64 dimensions with two hidden layers of
256, and 784 with two of 1024, in a random order. All have the same function: a peer's weights, masks and order are
replaced by ours, its rows of the last layer put in its order, and the bounds of the log-scales, which differ, opened:
zuko's by a slope of infinity, ours by a bound of 1000; Pyro's clamp, from -5 to 3, is not reached. So x must agree.
Every round times each in turn; the table gives medians, the ratio to ours, the largest difference of x to ours, and the
largest error of the round trip. Ours computes the log-determinant as well.

zuko turns off the validation of all distributions when it is imported: hence a process of its own.

    python -m benchmarks.autoregressive_inversion --threads 1
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import zuko
from pyro.distributions.transforms import AffineAutoregressive
from pyro.nn import AutoRegressiveNN
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pyro_dgm.nn.made import MADE
from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive

BATCH = 256
SIZES = {64: 256, 784: 1024}
"""Width of the hidden layers by number of dimensions."""

Pair = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""The map that is one pass, and its inverse."""


def copy(net: MADE, layers: list[nn.Module], rows: Tensor) -> None:
    """Overwrite a peer's masked layers by ours, with these rows of the last one."""
    for ours, theirs in zip(net.linear, layers, strict=True):
        chosen = rows if ours is net.linear[-1] else slice(None)
        theirs.weight.data.copy_(ours.weight.data[chosen])
        theirs.bias.data.copy_(ours.bias.data[chosen])
        theirs.mask = ours.mask[chosen].to(theirs.mask.dtype)


def make_flow(dim: int) -> InverseAutoregressive:
    flow = InverseAutoregressive(dim, hidden=[SIZES[dim]] * 2, order=torch.randperm(dim).tolist(), bound=1e3)
    with torch.no_grad():
        flow.net.linear[-1].weight.mul_(60)  # so that shifts and log-scales are not near zero
        flow.net.linear[-1].bias.uniform_(-0.5, 0.5)
    return flow


def in_pyro(flow: InverseAutoregressive) -> AffineAutoregressive:
    net = AutoRegressiveNN(flow.dim, [SIZES[flow.dim]] * 2, permutation=torch.tensor(flow.net.order))
    numbers = torch.arange(2 * flow.dim).reshape(flow.dim, 2).flip(1)  # of each dimension: shift and log-scale
    copy(flow.net, list(net.layers), numbers.t().flatten())
    return AffineAutoregressive(net)


def in_zuko(flow: InverseAutoregressive) -> zuko.flows.MaskedAutoregressiveTransform:
    univariate = partial(zuko.transforms.MonotonicAffineTransform, slope=math.inf)
    lazy = zuko.flows.MaskedAutoregressiveTransform(
        flow.dim, order=flow.net.ranks, univariate=univariate, hidden_features=[SIZES[flow.dim]] * 2
    )
    numbers = torch.arange(2 * flow.dim).reshape(flow.dim, 2).flip(1)
    copy(flow.net, list(lazy.hyper)[::2], numbers.flatten())
    return lazy


def contestants(dim: int, device: str) -> dict[str, Pair]:
    torch.manual_seed(0)
    flow = make_flow(dim)
    pyros, zukos = in_pyro(flow).to(device), in_zuko(flow).to(device)
    flow.to(device)
    return {
        "pyro_dgm": (lambda x: flow.forward_and_logdet(x)[0], lambda y: flow.inverse_and_logdet(y)[0]),
        "Pyro, AffineAutoregressive": (pyros._call, pyros._inverse),
        "zuko, MaskedAutoregressiveTransform": (zukos()._call, zukos()._inverse),
    }


def timed(action: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, Tensor]:
    """Time a call, in milliseconds."""
    if x.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = action(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), result


@torch.no_grad()
def measure(dim: int, rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Give medians over rounds: times, their ratios to ours round by round; and the largest errors."""
    pairs = contestants(dim, device)
    y = torch.randn(BATCH, dim, generator=torch.Generator().manual_seed(0)).to(device)
    times: dict[str, list[float]] = {name: [] for name in pairs}
    once: dict[str, list[float]] = {name: [] for name in pairs}
    x: dict[str, Tensor] = {}
    timed(pairs["pyro_dgm"][1], y)  # warm up
    for _ in range(rounds):
        for name, (forward, inverse) in pairs.items():
            milliseconds, x[name] = timed(inverse, y)
            times[name].append(milliseconds)
            once[name].append(timed(forward, x[name])[0])
    mine = torch.tensor(times["pyro_dgm"])
    return {
        name: {
            "ms": torch.tensor(times[name]).median().item(),
            "pass_ms": torch.tensor(once[name]).median().item(),
            "ratio": (torch.tensor(times[name]) / mine).median().item(),
            "lowest_ratio": (torch.tensor(times[name]) / mine).min().item(),
            "difference": (x[name] - x["pyro_dgm"]).abs().max().item(),
            "round_trip": (forward(x[name]) - y).abs().max().item(),
        }
        for name, (forward, _) in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the inverse of an autoregressive flow: here, Pyro and zuko.")
    parser.add_argument("--dims", type=int, nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, nargs="+", default=[20, 3], help="for each number of dimensions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = {}
    for dim, rounds in zip(options.dims, options.rounds, strict=False):
        figures[dim] = measure(dim, rounds, options.device)
        where = f"{options.device}, {options.threads} threads, {rounds} rounds"
        table = Table(title=f"Inverse, D = {dim}, hidden {SIZES[dim]} x 2, batch {BATCH}, {where}")
        for column in ("", "ms", "ratio", "lowest", "ms, one pass", "|x - ours|", "|f(x) - y|"):
            table.add_column(column, justify="left" if not column else "right", no_wrap=True)
        for name, row in figures[dim].items():
            speed = (f"{row['ms']:.2f}", f"{row['ratio']:.1f}", f"{row['lowest_ratio']:.1f}", f"{row['pass_ms']:.2f}")
            table.add_row(name, *speed, f"{row['difference']:.1e}", f"{row['round_trip']:.1e}")
        Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
