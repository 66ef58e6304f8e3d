# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How close flows come to Rezende & Mohamed's four potentials, as a KL divergence computed by quadrature.

Each flow is fitted by reverse KL (an ELBO whose evidence is the normaliser) from N(0, 2^2 I): Adam with a cosine, a
linear warm-up of beta over the first third, gradients clipped at 5. Then its density is evaluated on a grid, by the
exact inverse, and KL(q || p) is a sum over the grid. The second to fourth potential are improper: outside the box
[-4, 4] x [-4, 4] they get a steep wall, see `pyro_dgm.distributions.Potential`.

    python -m benchmarks.potentials --seeds 5
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from rich.console import Console
from rich.table import Table

from pyro_dgm.distributions import Potential
from pyro_dgm.transforms import (
    AffineCoupling,
    FlowTransform,
    HouseholderSylvester,
    InverseAutoregressive,
    Planar,
    SplineCoupling,
    Stack,
)

FLOWS: dict[str, Callable[[], FlowTransform]] = {
    "planar, K = 2": lambda: Planar(2, depth=2),
    "planar, K = 8": lambda: Planar(2, depth=8),
    "planar, K = 32": lambda: Planar(2, depth=32),
    "H-SNF, K = 16": lambda: HouseholderSylvester(2, depth=16, reflections=2),
    "IAF, K = 8": lambda: Stack(2, flow=partial(InverseAutoregressive, hidden=(32, 32)), depth=8),
    "RealNVP, K = 8": lambda: Stack(2, flow=AffineCoupling, depth=8),
    "spline coupling, K = 4": lambda: Stack(2, flow=partial(SplineCoupling, bound=10), depth=4),
}


def distribution(flow: FlowTransform) -> dist.TransformedDistribution:
    """The flow's density: standard normal noise, bent."""
    return dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [flow])


def fit(flow: FlowTransform, target: Potential, *, steps: int, batch: int = 200, lr: float = 5e-3) -> None:
    """Minimise KL(flow || target) with samples of the flow."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        beta = min(1.0, 0.01 + 3 * step / steps)
        q = distribution(flow)
        z = q.rsample((batch,))
        optimizer.zero_grad()
        (q.log_prob(z) - beta * target.log_prob(z)).mean().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def divergence(flow: FlowTransform, target: Potential) -> tuple[float, float]:
    """KL(flow || target) in nats and the flow's mass on the grid, by the rectangle rule; the second should be 1."""
    points, area = target.grid()
    log_q = distribution(copy.deepcopy(flow).double()).log_prob(points)
    log_p = target.log_prob(points) - target.log_z()
    q = log_q.exp() * area
    return (q * (log_q - log_p)).sum().item(), q.sum().item()


def measure(
    numbers: list[int], names: list[str], seeds: int, steps: int, figures: Path | None
) -> dict[str, dict[str, list[dict]]]:
    results: dict[str, dict[str, list[dict]]] = {name: {} for name in names}
    for number in numbers:
        target, fitted = Potential(number), {}
        for name in names:
            runs = results[name].setdefault(f"U{number}", [])
            for seed in range(seeds):
                pyro.set_rng_seed(seed)
                flow = FLOWS[name]()
                start = time.perf_counter()
                fit(flow, target, steps=steps)
                seconds = time.perf_counter() - start
                fitted.setdefault(name, flow)
                kl, mass = divergence(flow, target)
                runs.append({"kl": kl, "mass": mass, "seconds": seconds})
            print(name, f"U{number}", " ".join(f"{run['kl']:.3f}" for run in runs), flush=True)
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
            draw(fitted, target, figures / f"U{number}.png")
    return results


def table(results: dict[str, dict[str, list[dict]]], title: str) -> Table:
    rows = Table(title=title)
    columns = list(next(iter(results.values())))
    for column in ("KL(q || p), nats", *columns, "seconds a fit"):
        rows.add_column(column, justify="left" if column.startswith("KL") else "right")
    for name, targets in results.items():
        cells = []
        for runs in targets.values():
            kl = torch.tensor([run["kl"] for run in runs])
            spread = f" +- {kl.std().item() / len(runs) ** 0.5:.3f}" if len(runs) > 1 else ""
            cells.append(f"{kl.mean().item():.3f}{spread}")
        seconds = torch.tensor([run["seconds"] for runs in targets.values() for run in runs])
        rows.add_row(name, *cells, f"{seconds.median().item():.1f}")
    return rows


def draw(flows: dict[str, FlowTransform], target: Potential, path: Path) -> None:
    """Draw the target's density and those of the first seed's flows, side by side."""
    from matplotlib.figure import Figure

    points, _ = target.grid()
    side = int(len(points) ** 0.5)
    with torch.no_grad():
        densities = {"target": target.log_prob(points).exp()}
        densities |= {name: distribution(flow).log_prob(points.float()).exp() for name, flow in flows.items()}
    figure = Figure(figsize=(2 * len(densities), 2.3), layout="constrained")
    for axes, (name, density) in zip(figure.subplots(1, len(densities)), densities.items(), strict=True):
        axes.imshow(density.reshape(side, side).T, origin="lower", cmap="magma")
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit flows to four potentials in two dimensions.")
    parser.add_argument("--potentials", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--flows", nargs="+", default=list(FLOWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--figures", type=Path, help="a folder: also draw the densities there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # tensors of 200 x 2
    results = measure(options.potentials, options.flows, options.seeds, options.steps, options.figures)
    title = f"{options.steps} steps of 200 samples, {options.seeds} seeds, mean +- s.e."
    Console(width=150).print(table(results, title))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
