# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Draw what a run has learned into its folder: samples, reconstructions, latent space, learning curve."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from pyro_dgm import plots
from pyro_dgm.cli.measure import Program, has_codes
from pyro_dgm.data import Dataset, Split
from pyro_dgm.evaluate import (
    active_units,
    decode,
    dream,
    elbo_terms,
    embed,
    interpolate,
    random_subset,
    reconstruct,
    traverse,
)
from pyro_dgm.train import History

SAMPLES, SHOWN, WALKS, POINTS = 64, 20, 10, 1000
"""How many samples, reconstructions, latent coordinates and dots fit a picture."""
ROWS, STEPS = 6, 10
"""How many paths between images, and how many images on each, and at each temperature."""


def draw_all(program: Program, data: Dataset, folder: Path, history: History, *, warmup_end: float | None) -> list[str]:
    """Draw all pictures that the data and the model allow, as PNG files.

    Args:
        program: Model and guide.
        data: What was modelled, on the model's device; pictures are of the test split.
        folder: Where to; it is made.
        history: What each epoch ended with.
        warmup_end: The epoch at which warm-up ended.

    Returns:
        For each picture that could not be drawn, why (a likelihood without a mean, say).
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[], Figure]] = {"learning_curve": lambda: _curve(history, warmup_end)}
    has_latent = has_codes(program) and bool(elbo_terms(program.model, program.guide, data.test.x[:1]).kl)
    found = active_units(program.model, program.guide, _some(data, POINTS).x) if has_latent else None
    variances = found.variances if found else {}
    if is_image(data.description.shape) and (levels := data.description.levels) is not None:
        pictures["samples"] = lambda: samples_sheet(program, levels)
        if hasattr(program, "at_temperature"):
            pictures["temperatures"] = lambda: _temperatures(program, levels)
        if hasattr(program, "encode") and hasattr(program, "decode"):
            pictures["interpolation"] = lambda: _interpolation(program, data, levels)
        if has_latent:
            pictures["reconstructions"] = lambda: _reconstructions(program, data, levels)
        if variances:
            pictures["traversal"] = lambda: _traversal(program, data, levels, variances)
        if found and found.labels:
            pictures["components"] = lambda: _components(program, data, levels, site=found.labels[0])
    if variances and data.test.labels is not None:
        pictures["latent"] = lambda: _latent(program, data, site=next(iter(variances)))
    return list(_drawn(pictures, folder))


def samples_sheet(program: Program, levels: int, *, size: int = SAMPLES, seed: int = 0) -> Figure:
    """A sheet of what the model dreams: means of p(x | z) for z from the prior."""
    return plots.samples(dream(program.model, size, seed=seed), levels=levels)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether a datum can be shown: ``(H, W)``, or ``(C, H, W)`` with one channel or three."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def _drawn(pictures: dict[str, Callable[[], Figure]], folder: Path) -> Iterator[str]:
    for name, picture in pictures.items():
        try:
            picture().savefig(folder / f"{name}.png", dpi=150)
        except ValueError as error:
            yield f"no picture {name}.png: {error}"


def _curve(history: History, warmup_end: float | None) -> Figure:
    columns = {"epoch": history.column("epoch"), "train": history.column("train.loss")}
    has_valid = all("valid.loss" in record for record in history.epochs)
    if has_valid:
        columns["valid"] = history.column("valid.loss")
    return plots.learning_curve(columns, valid="valid" if has_valid else None, warmup_end=warmup_end)


def _some(data: Dataset, size: int) -> Split:
    """A random part of the test split: test sets are ordered, and their first images are all alike."""
    index = random_subset(len(data.test), min(size, len(data.test)))
    return data.test[index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]]


def _reconstructions(program: Program, data: Dataset, levels: int) -> Figure:
    x = _some(data, SHOWN).x
    return plots.reconstructions(x, reconstruct(program.model, program.guide, x), levels=levels)


def _traversal(program: Program, data: Dataset, levels: int, variances: dict[str, Tensor]) -> Figure:
    """Walk from one test image's code along the coordinates that vary most over the data."""
    site, varying = next(iter(variances.items()))
    dims = sorted(varying.argsort(descending=True)[:WALKS].tolist())
    z = embed(program.guide, _some(data, POINTS).x[:1], site=site)[0].flatten()
    grid = traverse(program.model, z, dims=dims, latent=site)
    names = [f"$z_{{{dim + 1}}}$" for dim in dims]
    return plots.traversal(grid, levels=levels, values=(-3, -2, -1, 0, 1, 2, 3), names=names)


def _temperatures(program: Any, levels: int) -> Figure:
    """The same noise at rising standard deviations."""
    temperatures = (0.5, 0.7, 0.85, 1.0)
    rows = [dream(program.at_temperature(t).model, STEPS) for t in temperatures]
    names = [f"T = {t:g}" for t in temperatures]
    return plots.traversal(torch.stack(rows), levels=levels, names=names, title="Samples by temperature")


def _interpolation(program: Any, data: Dataset, levels: int) -> Figure:
    """Paths between test images, which stand at both ends."""
    some = _some(data, 2 * ROWS).x
    rows = len(some) // 2  # fewer where there are few test images
    path = interpolate(program, some[:rows], some[rows : 2 * rows], steps=STEPS)
    return plots.traversal(path, levels=levels, names=[""] * rows, title="Between two test images, through noise")


def _components(program: Program, data: Dataset, levels: int, *, site: str) -> Figure:
    """Show the mean image of each category of a label."""
    with torch.no_grad():
        distribution: Any = poutine.trace(program.guide).get_trace(data.test.x[:1]).nodes[site]["fn"]
    labels = distribution.enumerate_support(expand=False).flatten()
    title = f"Components, the means of p(x | {site})"
    return plots.samples(decode(program.model, labels[:SAMPLES], latent=site), levels=levels, title=title)


def _latent(program: Program, data: Dataset, *, site: str) -> Figure:
    some = _some(data, POINTS)
    return plots.latent_scatter(embed(program.guide, some.x, site=site).flatten(1), some.labels)
