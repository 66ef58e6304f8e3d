# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How the cost of a training step grows with particles, batch, depth, number of flows and dimension.

In each series all sizes take turns in one run, as they are and compiled; ratios are to the smallest as it is.

    python -m benchmarks.growth --rounds 9
"""

import gc
from collections.abc import Callable
from functools import partial

import pyro
import torch
from rich.console import Console
from torch import nn

from benchmarks import contest
from benchmarks.compiled_step import mine
from benchmarks.importance_peers import ink, ours
from pyro_dgm.distributions import FlowPosterior
from pyro_dgm.infer import ELBO, IWAE, compiled
from pyro_dgm.models import VAE, FlowModel
from pyro_dgm.nn import MLP
from pyro_dgm.transforms import MaskedAutoregressive, Stack, TriangularSylvester

Make = Callable[[int, str], tuple[nn.Module, ELBO | IWAE, torch.Tensor]]


def particles(size: int, device: str) -> tuple[nn.Module, IWAE, torch.Tensor]:
    """An IWAE 784-200-200-50."""
    return ours(device), IWAE(size), ink(20, device)


def batch(size: int, device: str) -> tuple[nn.Module, ELBO, torch.Tensor]:
    """A VAE 784-200-200-50."""
    return ours(device), ELBO(), ink(size, device)


def depth(size: int, device: str) -> tuple[nn.Module, ELBO, torch.Tensor]:
    """A VAE with so many hidden layers of 200 units in each network."""
    net = partial(MLP, hidden=(200,) * size)
    return VAE(shape=(28, 28), levels=2, latent=50, encoder=net, decoder=net).to(device), ELBO(), ink(100, device)


def flows(size: int, device: str) -> tuple[nn.Module, ELBO, torch.Tensor]:
    """A VAE of 8 x 8 pixels whose posterior is so many amortised triangular Sylvester flows of 16 dimensions."""
    net, x = partial(MLP, hidden=(100,)), (torch.rand(100, 8, 8, device=device) < 0.2).to(torch.uint8)
    posterior = partial(FlowPosterior, context=100, flow=partial(TriangularSylvester, depth=size))
    options = {"levels": 2, "latent": 16, "encoder": net, "decoder": net, "posterior": posterior}
    return VAE(shape=(8, 8), **options).to(device), ELBO(), x


def dimension(size: int, device: str) -> tuple[nn.Module, ELBO, torch.Tensor]:
    """A density model of two masked autoregressive flows with 256 hidden units."""
    flow = partial(Stack, flow=partial(MaskedAutoregressive, hidden=(256,)), depth=2)
    return FlowModel(shape=(size,), flow=flow).to(device), ELBO(), torch.randn(100, size, device=device)


SERIES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "particles K (IWAE, batch 20)": (particles, (1, 5, 50, 500)),
    "batch (VAE)": (batch, (16, 64, 256, 1024)),
    "hidden layers (VAE, batch 100)": (depth, (1, 2, 4, 8)),
    "Sylvester flows (VAE, batch 100)": (flows, (1, 4, 16)),
    "dimension (2 MAFs, batch 100)": (dimension, (16, 64, 256)),
}


def main(arguments: list[str] | None = None) -> None:
    options = contest.options("Time training steps of growing size.", arguments, rounds=9, seconds=0.2)
    results = {}
    for name, (make, sizes) in SERIES.items():
        if options.only.lower() not in name.lower():
            continue
        torch.manual_seed(0)
        ways = {}
        for size in sizes:
            for label, wrap in (("", lambda bound: bound), (", compiled", compiled)):
                program, bound, x = make(size, options.device)
                ways[f"{size}{label}"] = mine(program, wrap(bound), x)
        with pyro.validation_enabled(is_validate=False):
            results[name] = contest.contest(
                ways, base=str(sizes[0]), rounds=options.rounds, seconds=options.seconds, device=options.device
            )
        title = f"{name}: {options.device}, {options.threads} threads, {options.rounds} rounds"
        Console(width=130).print(contest.table(title, results[name]))
        contest.save(options.json, results)
        gc.collect()


if __name__ == "__main__":
    main()
