# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What annealing costs and how tight it is: a gradient beside a hand-written one, and the sandwich against its steps.

A gradient of log p(x, z) for all chains of a batch is timed here, written by hand, and by a stock Pyro trace, in blocks
in turn; the VAE is 784-200-200-50. Then a small VAE is fitted to scikit-learn's digits, and its own dreams are bounded
from both sides with more and more steps.

    python -m benchmarks.ais --rounds 20
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import pyro
import torch
from pyro import poutine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.clock import timed
from pyro_dgm.data import Digits
from pyro_dgm.evaluate import bdmc
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.latent_path import LatentPath
from pyro_dgm.infer import ELBO, GradientStep, Objective
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP

CHAINS, BATCH, LATENT, SHAPE = 16, 32, 50, (28, 28)


def contestants(device: str) -> tuple[VAE, dict[str, Callable[[], object]]]:
    """The same gradient in three ways."""
    vae = VAE(shape=SHAPE, levels=2, latent=LATENT).to(device)
    x = torch.randint(0, 2, (BATCH, *SHAPE), device=device)
    u = torch.randn(CHAINS, BATCH, LATENT, device=device)
    decoder = vae.likelihood[0]
    target = x.float().expand(CHAINS, *x.shape)

    def handwritten() -> Tensor:
        z = u.detach().requires_grad_()
        logits = decoder(z).reshape(target.shape)
        fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        return torch.autograd.grad(-0.5 * z.square().sum() - fit, z)[0]

    def stock() -> Tensor:
        z = u.detach().requires_grad_()
        with pyro.plate("chains", CHAINS, dim=-2):
            trace = poutine.trace(poutine.condition(vae.model, data={"z": z})).get_trace(x)
        return torch.autograd.grad(torch.as_tensor(trace.log_prob_sum()), z)[0]

    path = LatentPath(vae.model, None, x, chains=CHAINS)
    path.draw()
    return vae, {"hand-written": handwritten, "pyro_dgm, LatentPath": lambda: path(u), "stock Pyro, trace": stock}


def gradients(rounds: int, repeats: int, device: str) -> Table:
    """Time the gradients; ratios are medians over rounds."""
    vae, actions = contestants(device)
    times: dict[str, list[float]] = {name: [] for name in actions}
    with frozen(vae, seed=0), torch.enable_grad(), pyro.validation_enabled(is_validate=False):
        for _ in range(rounds + 1):  # the first warms up
            for name, action in actions.items():
                times[name].append(timed(action, repeats, device))
    base = torch.tensor(times["hand-written"][1:])
    table = Table("", "ms a gradient", "ratio", title=f"{CHAINS} chains of {BATCH} data, VAE 784-200-200-50, {device}")
    for name, row in times.items():
        middle = torch.tensor(row[1:])
        table.add_row(name, f"{middle.median():.2f}", f"{(middle / base).median():.2f}")
    return table


def fitted(device: str, epochs: int = 60) -> VAE:
    """A VAE of scikit-learn's digits."""
    torch.manual_seed(0)
    data = Digits(binarization="static")
    net = partial(MLP, hidden=(200,))
    vae = VAE(shape=data.description.shape, levels=2, latent=10, encoder=net, decoder=net).to(device)
    objective = Objective(vae.model, vae.guide, ELBO())
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=1e-3))
    for _ in range(epochs):
        for index in torch.randperm(len(data.train.x)).split(100):
            step(data.train.x[index].to(device))
    return vae


def sandwiches(vae: VAE, most: int) -> Table:
    """Bound dreams from both sides with more and more steps."""
    table = Table("start", "steps", "NLL <=", "NLL >=", "gap", "seconds", title="100 dreams of a VAE of digits, nats")
    for start in ("prior", "guide"):
        for steps in (10, 30, 100, 300, 1000):
            if steps <= most:
                begin = time.perf_counter()
                found = bdmc(vae.model, vae.guide, size=100, num_steps=steps, start=start)
                seconds = time.perf_counter() - begin
                gap = f"{found.gap.mean:.3f} +- {found.gap.standard_error:.3f}"
                bounds = (f"{found.upper.mean:.2f}", f"{found.lower.mean:.2f}")
                table.add_row(start, str(steps), *bounds, gap, f"{seconds:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and tightness of annealed importance sampling.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10, help="gradients in a block")
    parser.add_argument("--steps", type=int, default=300, help="longest annealing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=110)
    console.print(gradients(options.rounds, options.repeats, options.device))
    console.print(sandwiches(fitted(options.device), options.steps))


if __name__ == "__main__":
    main()
