# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long the NLL of images by importance sampling takes here, in stock Pyro, pythae and plain PyTorch, in one run.

Every round measures a block of images in each way in turn. Stock Pyro's `RenyiELBO` and pythae take one image at a
time, as their own code does; the hand-written loop takes as many particles at once as ours.

    python -m benchmarks.importance_sampling --images 1000 --samples 5000
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro.infer import RenyiELBO
from rich.console import Console
from torch import Tensor

from benchmarks.clock import timed
from benchmarks.importance_peers import Plain, Stock, ink, of_pythae, ours
from benchmarks.iwae_step import table
from pyro_dgm.evaluate import log_likelihood


def mine(samples: int, device: str) -> Callable[[Tensor], object]:
    vae = ours(device)
    return lambda x: log_likelihood(vae.model, vae.guide, x, num_samples=samples)


def stock(samples: int, device: str) -> Callable[[Tensor], object]:
    pyro.clear_param_store()
    program = Stock().to(device)
    bound = RenyiELBO(alpha=0, num_particles=samples, vectorize_particles=True, max_plate_nesting=1)

    @torch.no_grad()
    def nll(x: Tensor) -> list[float]:
        return [bound.loss(program.model, program.guide, one.unsqueeze(0)) for one in x]

    return nll


def plain(samples: int, device: str) -> Callable[[Tensor], object]:
    model, chunk = Plain().to(device), 5000

    @torch.no_grad()
    def nll(x: Tensor) -> Tensor:
        values = []
        for one in x:
            parts = [model.log_weights(one.unsqueeze(0), min(chunk, samples - k)) for k in range(0, samples, chunk)]
            values.append(math.log(samples) - torch.cat(parts).double().logsumexp(0))
        return torch.cat(values)

    return nll


def pythae(samples: int, device: str) -> Callable[[Tensor], object]:
    model = of_pythae(samples, device)
    return torch.no_grad()(lambda x: model.get_nll(x.unsqueeze(1).float(), n_samples=samples, batch_size=500))


WAYS = {
    "plain PyTorch, hand-written": plain,
    "pyro_dgm, log_likelihood": mine,
    "stock Pyro, RenyiELBO": stock,
    "pythae, get_nll": pythae,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the NLL by importance sampling in four ways.")
    parser.add_argument("--images", type=int, default=1000, help="all rounds together")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = {name: way(options.samples, options.device) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    blocks = ink(options.images, options.device).chunk(options.rounds)
    with pyro.validation_enabled(is_validate=False):
        for x in blocks:
            for name, way in ways.items():
                times[name].append(timed(lambda way=way, x=x: way(x), 1, options.device) / len(x))  # type: ignore[misc]
    title = f"{options.images} images, {options.samples} samples each, {options.device}, {options.threads} threads"
    Console(width=110).print(table(times, title, "ms an image"))
    if options.json:
        options.json.write_text(json.dumps(times, indent=2))


if __name__ == "__main__":
    main()
