# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What compilation brings to a training step: here, in stock Pyro, in plain PyTorch, compiled or not, and in libraries.

Four programs: the VAE of `benchmarks.vae_step`, the IWAE of `benchmarks.iwae_step`, a VAE whose posterior is 16
amortised Sylvester flows, a Glow. All steps end with the fused Adam, but for stock Pyro's, which has its own.

    python -m benchmarks.compiled_step --rounds 15
"""

import contextlib
import gc
import math
import time
import warnings
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from pyro.nn import PyroModule
from rich.console import Console
from torch import Tensor, nn

from benchmarks import contest
from benchmarks.importance_peers import Plain, Stock, ink, of_pythae, ours
from benchmarks.vae_step import BATCH, HandWritten, WithDistributions, make_vae
from pyro_dgm.distributions import FlowPosterior
from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective, compiled
from pyro_dgm.models import VAE
from pyro_dgm.nn import GatedMLP
from pyro_dgm.transforms import HouseholderSylvester, OrthogonalSylvester, TriangularSylvester

LIMIT, EAGER, MINE, FAST = "plain PyTorch, compiled", "plain PyTorch", "pyro_dgm", "pyro_dgm, compiled"
Step = Callable[[], object]


def adam(module: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A step by hand."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def mine(program: nn.Module, bound: pyro.infer.ELBO, x: Tensor) -> Step:
    """A step of ours."""
    objective = Objective(program.model, program.guide, bound)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4, fused=True)
    return partial(GradientStep(objective, optimizer), x)


def both(make: Callable[[], nn.Module], bound: Callable[[], ELBO | IWAE], x: Tensor) -> dict[str, Step]:
    """Ours, as it is and compiled, with what the first call of the latter takes."""
    steps = {MINE: mine(make(), bound(), x), FAST: mine(make(), compiled(bound()), x)}
    start = time.perf_counter()
    steps[FAST]()
    print(f"    captured in {time.perf_counter() - start:.1f} s", flush=True)
    return steps


def vae(device: str) -> dict[str, Step]:
    """The VAE 784-200-200-50."""
    x = (ink(BATCH, device) > 0).to(torch.uint8)
    hand, swift, usual = HandWritten().to(device), HandWritten().to(device), WithDistributions().to(device)
    swift_loss = torch.compile(swift)
    pyro.clear_param_store()
    stock = make_vae(device)
    svi = SVI(stock.model, stock.guide, pyro.optim.Adam({"lr": 1e-4}), Trace_ELBO())
    return {
        LIMIT: adam(swift, lambda: swift_loss(x)),
        EAGER: adam(hand, lambda: hand(x)),
        "plain PyTorch, torch.distributions": adam(usual, lambda: usual(x)),
        **both(partial(make_vae, device), ELBO, x),
        "stock Pyro, SVI + Trace_ELBO": partial(svi.step, x),
    }


def iwae(device: str, particles: int = 50) -> dict[str, Step]:
    """The IWAE 784-200-200-50."""
    x = ink(100, device)
    hand, swift, theirs = Plain().to(device), Plain().to(device), of_pythae(particles, device)
    swift_loss = torch.compile(swift)
    pyro.clear_param_store()
    stock = Stock().to(device)
    bound = RenyiELBO(alpha=0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(stock.model, stock.guide, pyro.optim.Adam({"lr": 1e-4}), bound)
    return {
        LIMIT: adam(swift, lambda: swift_loss(x, particles)),
        EAGER: adam(hand, lambda: hand(x, particles)),
        **both(partial(ours, device), partial(IWAE, particles), x),
        "stock Pyro, SVI + RenyiELBO": partial(svi.step, x),
        "pythae, IWAE": adam(theirs, lambda: theirs({"data": x.unsqueeze(1).float()}).loss),
    }


def sylvester(device: str, flow: Callable[..., nn.Module], side: int, latent: int, hidden: int) -> dict[str, Step]:
    """A VAE with 16 amortised Sylvester flows."""
    x = (torch.rand(100, side, side) < 0.2).to(torch.uint8).to(device)
    net = partial(GatedMLP, hidden=(hidden,))
    posterior = partial(FlowPosterior, context=hidden, flow=partial(flow, depth=16))
    options = {"levels": 2, "latent": latent, "encoder": net, "decoder": net, "posterior": posterior}
    return both(lambda: VAE(shape=(side, side), **options).to(device), ELBO, x)


class GlowProgram(PyroModule):
    """log p(x) of the Glow in `benchmarks.image_flow_peers`, as a program."""

    def __init__(self, flow: nn.Module, dim: int) -> None:
        super().__init__()
        self.flow, self.dim = flow, dim

    def model(self, x: Tensor) -> None:
        like = next(self.flow.parameters())
        noise = dist.Normal(like.new_zeros(()), like.new_ones(())).expand([self.dim]).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.TransformedDistribution(noise, [self.flow]), obs=x)

    def guide(self, x: Tensor) -> None:
        """Nothing is latent."""


def glow(device: str, depth: int = 8) -> dict[str, Step]:
    """A Glow of two scales of 8 steps, 64 channels, on 32 images of 3 x 16 x 16."""
    from benchmarks.image_flow_peers import Size, by_hand, of_normflows
    from benchmarks.image_flow_peers import ours as of_ours

    size, x = Size((3, 16, 16), 2, depth, 64), torch.rand(32, 3, 16, 16, device=device)
    peers = {"by hand": by_hand(size), "normflows": of_normflows(size)}
    steps = both(lambda: GlowProgram(of_ours(size).module, math.prod(size.shape)).to(device), ELBO, x)
    for name, peer in peers.items():
        peer.module.to(device)
        steps[name] = adam(peer.module, lambda peer=peer: -peer.score(x.clone()).mean())  # type: ignore[misc]
    steps[EAGER] = steps.pop("by hand")
    return steps


SMALL, PAPER = (8, 16, 100), (28, 64, 300)
CONTESTS: dict[str, tuple[Callable[[str], dict[str, Step]], str]] = {
    "VAE 784-200-200-50, batch 128": (vae, LIMIT),
    "IWAE 784-200-200-50, K = 50, batch 100": (iwae, LIMIT),
    **{
        f"VAE with 16 amortised {name} flows, {side} x {side} pixels, {latent} latents, batch 100": (
            partial(sylvester, flow=flow, side=side, latent=latent, hidden=hidden),
            MINE,
        )
        for side, latent, hidden in (SMALL, PAPER)
        for name, flow in {
            "T-SNF": TriangularSylvester,
            "H-SNF": partial(HouseholderSylvester, reflections=8 if side == 28 else 4),
            "O-SNF": partial(OrthogonalSylvester, bottleneck=latent // 2),
        }.items()
    },
    "Glow, 2 x 8 steps, 64 channels, 32 images of 3 x 16 x 16": (glow, MINE),
}


def main(arguments: list[str] | None = None) -> None:
    options = contest.options("Time training steps: compiled, or not.", arguments, rounds=15, seconds=0.3)
    run = partial(contest.contest, rounds=options.rounds, seconds=options.seconds, device=options.device)
    results = {}
    for name, (make, base) in CONTESTS.items():
        if options.only.lower() not in name.lower():
            continue
        print(name, flush=True)
        torch.manual_seed(0)
        with pyro.validation_enabled(is_validate=False), contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            results[name] = run(make(options.device), base=base)
        title = f"{name}: {options.device}, {options.threads} threads, {options.rounds} rounds"
        Console(width=130).print(contest.table(title, results[name]))
        contest.save(options.json, results)
        gc.collect()


if __name__ == "__main__":
    main()
