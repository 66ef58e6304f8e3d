# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How close automatic guides come to the posterior of eight schools, beside NUTS and beside the exact answer.

The data are those of Rubin (1981): the effect of coaching in eight schools and its standard error. The model is the
centred one with mu ~ N(0, 5^2), tau ~ HalfCauchy(5), theta ~ N(mu, tau^2): where tau is small all theta must be close
to mu, a funnel that no normal distribution follows. Given mu and tau everything is normal, so the evidence and the
moments of mu and tau are computed exactly, by quadrature, and the ELBO's distance to the evidence is KL(q || p).

NUTS runs on the same posterior in the non-centred parametrisation (Papaspiliopoulos et al. 2007), in which it has no
funnel to get stuck in. The distance is Wasserstein's first between the marginals of guide and NUTS, in posterior
standard deviations, averaged over the ten variables (tau by its log): what the guide's draws would have to be moved.

    python -m benchmarks.eight_schools --seeds 5
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoContinuous, AutoDiagonalNormal, AutoMultivariateNormal
from pyro.infer.reparam import LocScaleReparam
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_dgm.infer import AutoFlow
from pyro_dgm.transforms import InverseAutoregressive, Planar, Stack

EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

Draws = dict[str, Tensor]
GUIDES: dict[str, Callable[..., AutoContinuous]] = {
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoFlow": AutoFlow,
    "AutoFlow, 4 IAF": partial(
        AutoFlow, flow=partial(Stack, flow=partial(InverseAutoregressive, activation=torch.nn.Tanh))
    ),
    "AutoFlow, 16 planar": partial(AutoFlow, flow=partial(Planar, depth=16)),
}


def eight_schools() -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERROR), obs=EFFECT)


def exact(*, draws: int) -> tuple[dict[str, float], Draws]:
    """The log evidence and posterior moments by quadrature over mu and log tau in float64, and exact draws."""
    mu = torch.linspace(-30, 40, 1401, dtype=torch.float64)
    log_tau = torch.linspace(-12, 6, 3601, dtype=torch.float64)
    grid_mu, grid_log = torch.meshgrid(mu, log_tau, indexing="ij")
    tau = grid_log.exp()
    five = torch.tensor(5.0, dtype=torch.float64)
    log_p = dist.Normal(0.0, five).log_prob(grid_mu) + dist.HalfCauchy(five).log_prob(tau) + grid_log
    for effect, error in zip(EFFECT.double(), ERROR.double(), strict=True):
        log_p = log_p + dist.Normal(grid_mu, (tau.square() + error.square()).sqrt()).log_prob(effect)
    log_p = log_p + ((mu[1] - mu[0]) * (log_tau[1] - log_tau[0])).log()
    log_z = log_p.flatten().logsumexp(0)
    weight = (log_p - log_z).exp()

    def mean(value: Tensor) -> float:
        return (weight * value).sum().item()

    moments = {
        f"{what}_{name}": found
        for name, value in (("mu", grid_mu), ("tau", tau))
        for what, found in (("mean", mean(value)), ("sd", (mean(value.square()) - mean(value) ** 2) ** 0.5))
    }
    index = weight.flatten().multinomial(draws, replacement=True)
    drawn = {"mu": grid_mu.flatten()[index].unsqueeze(-1), "tau": tau.flatten()[index].unsqueeze(-1)}
    precision = drawn["tau"] ** -2 + ERROR**-2
    loc = (drawn["mu"] * drawn["tau"] ** -2 + EFFECT * ERROR**-2) / precision
    drawn["theta"] = dist.Normal(loc, precision**-0.5).sample()
    return {"log_z": log_z.item(), "elbo": log_z.item(), **moments}, {k: v.float() for k, v in drawn.items()}


def nuts(*, draws: int, warmup: int, seed: int) -> Draws:
    """Sample the posterior by NUTS, non-centred."""
    pyro.set_rng_seed(seed)
    model = poutine.reparam(eight_schools, config={"theta": LocScaleReparam(0.0)})
    chain = MCMC(NUTS(model, target_accept_prob=0.9), num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    chain.run()
    found = chain.get_samples()
    found["theta"] = found["mu"].unsqueeze(-1) + found["tau"].unsqueeze(-1) * found.pop("theta_decentered")
    return found


def fit(make: Callable[..., AutoContinuous], *, steps: int, particles: int, seed: int) -> AutoContinuous:
    """Maximise the ELBO with Adam, its rate falling from 0.01 to 0 by a cosine."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    guide = make(eight_schools)
    guide()
    loss = Trace_ELBO(particles, vectorize_particles=True, max_plate_nesting=1)(eight_schools, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(guide.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return guide


def coordinates(draws: Draws) -> Tensor:
    """All ten variables, tau by its log, shape ``(draws, 10)``."""
    parts = (draws["mu"].reshape(-1, 1), draws["tau"].reshape(-1, 1).log(), draws["theta"].reshape(-1, 8))
    return torch.cat(parts, dim=1)


def distance(draws: Draws, reference: Draws) -> float:
    """The mean over variables of the first Wasserstein distance of marginals, in the reference's deviations."""
    places = (torch.arange(2000) + 0.5) / 2000
    one, other = (torch.quantile(coordinates(part), places, dim=0) for part in (draws, reference))
    return ((one - other).abs().mean(0) / coordinates(reference).std(0)).mean().item()


def summary(draws: Draws, reference: Draws) -> dict[str, float]:
    moments = {
        f"{what}_{name}": getattr(draws[name], what)().item() for name in ("mu", "tau") for what in ("mean", "std")
    }
    return {key.replace("std", "sd"): value for key, value in moments.items()} | {
        "distance": distance(draws, reference)
    }


@torch.no_grad()
def judge(guide: AutoContinuous, reference: Draws, *, draws: int) -> dict[str, float]:
    """The ELBO by as many samples, with moments and distance of draws."""
    loss = Trace_ELBO(draws, vectorize_particles=True, max_plate_nesting=1).loss(eight_schools, guide)
    found = Predictive(eight_schools, guide=guide, num_samples=draws, parallel=True)()
    return {"elbo": -loss, **summary(found, reference)}


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    pyro.set_rng_seed(0)
    truth, ideal = exact(draws=20_000)
    start = time.perf_counter()
    reference = nuts(draws=options.draws, warmup=options.draws // 4, seed=1000)
    rows = {"exact": [truth], "NUTS": [{**summary(reference, ideal), "seconds": time.perf_counter() - start}]}
    for name in options.guides:
        rows[name] = []
        for seed in range(options.seeds):
            start = time.perf_counter()
            guide = fit(GUIDES[name], steps=options.steps, particles=options.particles, seed=seed)
            seconds = time.perf_counter() - start
            found = judge(guide, reference, draws=20_000)
            rows[name].append({**found, "kl": truth["log_z"] - found["elbo"], "seconds": seconds})
        print(name, " ".join(f"{run['elbo']:.3f}" for run in rows[name]), flush=True)
    return rows


COLUMNS = {
    "elbo": "ELBO",
    "kl": "KL(q || p)",
    "mean_mu": "E mu",
    "sd_mu": "sd mu",
    "mean_tau": "E tau",
    "sd_tau": "sd tau",
    "distance": "distance",
    "seconds": "seconds",
}


def cell(key: str, runs: list[dict[str, float]]) -> str:
    values = [run[key] for run in runs if key in run]
    if not values:
        return ""
    if key == "seconds":
        return f"{median(values):.0f}"
    mean = torch.tensor(values).mean().item()
    error = f" +- {torch.tensor(values).std().item() / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{mean:.3f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit automatic guides to eight schools.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--draws", type=int, default=4000, help="of NUTS")
    parser.add_argument("--guides", nargs="*", default=list(GUIDES), choices=list(GUIDES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    rows = measure(options)
    table = Table(title=f"Eight schools, centred; {options.steps} steps of {options.particles} particles; nats")
    for title in ("", *COLUMNS.values()):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name, runs in rows.items():
        table.add_row(name, *(cell(key, runs) for key in COLUMNS))
    Console(width=180).print(table)
    took = time.perf_counter() - start
    print(f"{options.seeds} seeds, mean +- standard error; the distance of NUTS is to exact draws; {took:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
