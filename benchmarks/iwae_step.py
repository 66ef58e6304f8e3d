# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long a training step of an IWAE with K particles takes here, in stock Pyro, pythae and plain PyTorch, in one run.

Every round times a block of steps of each way in turn; the table gives medians and quartiles of the rounds.

    python -m benchmarks.iwae_step --rounds 15
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, RenyiELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.importance_peers import Plain, Stock, ink, of_pythae, ours
from pyro_dgm.infer import IWAE, GradientStep, Objective


def mine(particles: int, device: str) -> Callable[[Tensor], object]:
    vae = ours(device)
    objective = Objective(vae.model, vae.guide, IWAE(particles))
    return GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True))


def stock(particles: int, device: str) -> Callable[[Tensor], object]:
    pyro.clear_param_store()
    program = Stock().to(device)
    bound = RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    return SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-3}), bound).step


def trained(module: torch.nn.Module, loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], object]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(x)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def plain(particles: int, device: str) -> Callable[[Tensor], object]:
    model = Plain().to(device)
    return trained(model, lambda x: model(x, particles))


def pythae(particles: int, device: str) -> Callable[[Tensor], object]:
    model = of_pythae(particles, device)
    return trained(model, lambda x: model({"data": x.unsqueeze(1).float()}).loss)


WAYS = {
    "plain PyTorch, hand-written": plain,
    "pyro_dgm, IWAE": mine,
    "stock Pyro, RenyiELBO": stock,
    "pythae, IWAE": pythae,
}


def measure(particles: int, batch: int, rounds: int, repeats: int, device: str) -> dict[str, list[float]]:
    x = ink(batch, device)
    actions = {name: partial(way(particles, device), x) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    with pyro.validation_enabled(is_validate=False):
        for action in actions.values():
            timed(action, 2, device)  # warm up
        for _ in range(rounds):
            for name, action in actions.items():
                times[name].append(timed(action, repeats, device))
    return times


def table(times: dict[str, list[float]], title: str, unit: str, base: str = "plain PyTorch, hand-written") -> Table:
    """Lay out medians, and our ratio to each, round by round."""
    rows = Table(title=title)
    for column in ("", unit, "ratio to hand-written", "quartiles"):
        rows.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, row in times.items():
        ratios = torch.tensor(row) / torch.tensor(times[base])
        low, middle, high = torch.quantile(ratios, torch.tensor([0.25, 0.5, 0.75])).tolist()
        rows.add_row(name, f"{torch.tensor(row).median().item():.2f}", f"{middle:.2f}", f"{low:.2f} ... {high:.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time an IWAE step: pyro_dgm, stock Pyro, pythae and plain PyTorch.")
    parser.add_argument("--particles", type=int, default=50)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5, help="steps in a block")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times = measure(options.particles, options.batch, options.rounds, options.repeats, options.device)
    title = f"IWAE, K = {options.particles}, batch {options.batch}, {options.device}, {options.threads} threads"
    Console(width=110).print(table(times, title, "ms a step"))
    if options.json:
        options.json.write_text(json.dumps(times, indent=2))


if __name__ == "__main__":
    main()
