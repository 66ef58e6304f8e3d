# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Maximum likelihood on two moons and a checkerboard: the same flows here and in zuko, of equally many parameters.

Both see the same data in the same order and the same optimiser: Adam, learning rate 2e-3 with a cosine, batch 256. The
figure is the log-likelihood of 20000 test points in nats, over seeds; the difference is paired by seed.

    python -m benchmarks.density_estimation --seeds 5
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro.distributions as dist
import torch
import zuko
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_moons
from torch import Tensor, nn

from pyro_dgm.transforms import MaskedAutoregressive, SplineAutoregressive, Stack

HIDDEN, DEPTH = (64, 64), 4


class Ours(nn.Module):
    """A stack of flows on a standard normal."""

    def __init__(self, flow: Callable) -> None:
        super().__init__()
        self.flow = Stack(2, flow=partial(flow, hidden=HIDDEN), depth=DEPTH)

    def forward(self) -> dist.TransformedDistribution:
        return dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [self.flow])


PAIRS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "MAF": {
        "pyro_dgm": lambda: Ours(MaskedAutoregressive),
        "zuko": lambda: zuko.flows.MAF(2, transforms=DEPTH, hidden_features=HIDDEN),
    },
    "NSF": {
        "pyro_dgm": lambda: Ours(SplineAutoregressive),
        "zuko": lambda: zuko.flows.NSF(2, transforms=DEPTH, hidden_features=HIDDEN, bins=8),
    },
}


def two_moons(count: int, seed: int) -> Tensor:
    points, _ = make_moons(count, noise=0.08, random_state=seed)
    return (torch.as_tensor(points, dtype=torch.float32) - torch.tensor([0.5, 0.25])) * 1.5


def checkerboard(count: int, seed: int) -> Tensor:
    """Uniform on eight of the sixteen squares of [-2, 2] x [-2, 2]: its entropy is log 8 nats."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 4, (count,), generator=generator)
    row = 2 * torch.randint(0, 2, (count,), generator=generator) + corner % 2
    return torch.stack([corner, row], -1) - 2 + torch.rand(count, 2, generator=generator)


DATA = {"two moons": two_moons, "checkerboard": checkerboard}


def fit(model: nn.Module, x: Tensor, *, steps: int, seed: int, lr: float = 2e-3, batch: int = 256) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (batch,), generator=generator)
        optimizer.zero_grad()
        (-model().log_prob(x[rows]).mean()).backward()
        optimizer.step()
        schedule.step()


def measure(seeds: int, steps: int) -> list[dict]:
    results = []
    for data, sample in DATA.items():
        for name, libraries in PAIRS.items():
            row: dict = {"data": data, "flow": name}
            for library, make in libraries.items():
                row[library] = {"test": [], "seconds": []}
                for seed in range(seeds):
                    torch.manual_seed(seed)
                    model, start = make(), time.perf_counter()
                    fit(model, sample(20_000, seed), steps=steps, seed=seed)
                    row[library]["seconds"].append(time.perf_counter() - start)
                    with torch.no_grad():
                        row[library]["test"].append(model().log_prob(sample(20_000, 1000 + seed)).mean().item())
                row[library]["parameters"] = sum(p.numel() for p in model.parameters())
            print(row, flush=True)
            results.append(row)
    return results


def table(results: list[dict], title: str) -> Table:
    rows = Table(title=title)
    for column in ("data", "flow", "pyro_dgm", "zuko", "difference", "parameters", "seconds, pyro_dgm : zuko"):
        rows.add_column(column)
    for row in results:
        ours, other = (torch.tensor(row[library]["test"]) for library in ("pyro_dgm", "zuko"))
        cells = [_mean(ours), _mean(other), _mean(ours - other)]
        counts = f"{row['pyro_dgm']['parameters']} : {row['zuko']['parameters']}"
        seconds = [torch.tensor(row[library]["seconds"]).median().item() for library in ("pyro_dgm", "zuko")]
        rows.add_row(row["data"], row["flow"], *cells, counts, f"{seconds[0]:.1f} : {seconds[1]:.1f}")
    return rows


def _mean(values: Tensor) -> str:
    return f"{values.mean().item():.4f} +- {values.std().item() / len(values) ** 0.5:.4f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit MAF and NSF to points in the plane, here and in zuko.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tensors of 256 x 64
    results = measure(options.seeds, options.steps)
    title = f"test log-likelihood, nats, mean +- s.e. of {options.seeds} seeds, {options.steps} steps"
    Console(width=150).print(table(results, title))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
