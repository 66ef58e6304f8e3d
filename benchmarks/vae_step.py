# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long a training step of one VAE takes here, in stock Pyro and in plain PyTorch, side by side in one run.

The VAE of the comparison: 784-200-200-50 and back, ReLU, Bernoulli, Adam, batch 128. Every round times a block of steps
of each way in turn, so that whatever else the machine does hits all alike; the table gives medians and quartiles of
the rounds. Feeding is timed in the same rounds: batches binarised anew, from `pyro_dgm.data` and from a DataLoader.

    python -m benchmarks.vae_step --rounds 40
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.clock import timed
from pyro_dgm.data import Batches
from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective
from pyro_dgm.models import VAE

BATCH, LATENT, HIDDEN, SHAPE, SIZE = 128, 50, 200, (28, 28), 20_000


class HandWritten(nn.Module):
    """The same VAE as anyone would write it in PyTorch, with sampled KL terms as in an ELBO by Monte Carlo."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).float()
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = nn.functional.softplus(raw)
        z = loc + scale * torch.randn_like(loc)
        log_q = -0.5 * ((z - loc) / scale).square() - scale.log()
        log_p = -0.5 * z.square()
        log_px = -nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return -(log_px + (log_p - log_q).sum()) / len(x)


class WithDistributions(HandWritten):
    """The same again with torch.distributions and the closed-form KL, which many tutorials use."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).float()
        loc, raw = self.encoder(x).chunk(2, -1)
        q = Normal(loc, nn.functional.softplus(raw), validate_args=False)
        kl = kl_divergence(q, Normal(torch.zeros_like(loc), 1.0, validate_args=False)).sum()
        log_px = Bernoulli(logits=self.decoder(q.rsample()), validate_args=False).log_prob(x).sum()
        return (kl - log_px) / len(x)


def make_vae(device: str) -> VAE:
    return VAE(shape=SHAPE, levels=2, latent=LATENT).to(device)


def ours(device: str, bound: ELBO | IWAE) -> Callable[[Tensor], object]:
    vae = make_vae(device)
    objective = Objective(vae.model, vae.guide, bound)
    return GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True))


def stock(device: str) -> Callable[[Tensor], object]:
    pyro.clear_param_store()
    vae = make_vae(device)
    return SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step


def plain(device: str, module: type[HandWritten]) -> Callable[[Tensor], object]:
    model = module().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = model(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def endless(batches: Batches) -> Iterator[Tensor]:
    while True:
        yield from batches


def loader(grey: Tensor) -> Iterator[Tensor]:
    data = DataLoader(TensorDataset(grey), batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for (x,) in data:
            yield torch.bernoulli(x / 255.0).to(torch.uint8)


def contestants(device: str) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (SIZE, *SHAPE), generator=generator, dtype=torch.uint8)
    grey *= torch.rand(grey.shape, generator=generator) < 0.2  # about as much ink as MNIST has
    x = (grey[:BATCH] > 127).to(torch.uint8).to(device)
    feed = endless(Batches(grey.to(device), batch_size=BATCH, grey_levels=256, drop_last=True))
    loading = loader(grey)
    steps = {
        "plain PyTorch, hand-written": plain(device, HandWritten),
        "plain PyTorch, torch.distributions": plain(device, WithDistributions),
        "pyro_dgm, ELBO": ours(device, ELBO()),
        "stock Pyro, SVI + Trace_ELBO": stock(device),
        "pyro_dgm, IWAE K=5": ours(device, IWAE(5)),
    }
    actions: dict[str, Callable[[], object]] = {name: partial(step, x) for name, step in steps.items()}
    actions["feeding: pyro_dgm.data.Batches"] = lambda: next(feed)
    actions["feeding: DataLoader"] = lambda: next(loading).to(device)
    return actions


def measure(rounds: int, repeats: int, device: str) -> dict[str, list[float]]:
    actions = contestants(device)
    times: dict[str, list[float]] = {name: [] for name in actions}
    with pyro.validation_enabled(is_validate=False):
        for action in actions.values():
            timed(action, repeats, device)  # warm up
        for _ in range(rounds):
            for name, action in actions.items():
                times[name].append(timed(action, repeats, device))
    return times


def report(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Give the median and quartiles of the times, and of the ratio to the hand-written step, round by round."""
    base = torch.tensor(times["plain PyTorch, hand-written"])
    quartiles = torch.tensor([0.25, 0.5, 0.75])
    rows = {}
    for name, row in times.items():
        low, middle, high = torch.quantile(torch.tensor(row) / base, quartiles).tolist()
        rows[name] = {"ms": torch.tensor(row).median().item(), "ratio": middle, "ratio_25": low, "ratio_75": high}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a VAE step: pyro_dgm, stock Pyro and plain PyTorch.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=50, help="steps in a block")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = report(measure(options.rounds, options.repeats, options.device))
    table = Table(title=f"VAE 784-200-200-50, batch {BATCH}, {options.device}, {options.threads} threads")
    for column in ("", "ms a step", "ratio to hand-written", "quartiles"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, row in rows.items():
        spread = f"{row['ratio_25']:.2f} ... {row['ratio_75']:.2f}"
        table.add_row(name, f"{row['ms']:.3f}", f"{row['ratio']:.2f}", spread)
    Console(width=110).print(table)
    share = rows["feeding: pyro_dgm.data.Batches"]["ms"] / rows["pyro_dgm, ELBO"]["ms"]
    print(f"feeding takes {100 * share:.1f} % of a pyro_dgm ELBO step ({options.rounds} rounds of {options.repeats})")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
