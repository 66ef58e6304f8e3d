# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Compare methods on one data set: project it, fit, make table and pictures; the verb ``compare`` as a function."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_dgm import plots
from pyro_dgm.cli.comparison_table import ComparisonTable
from pyro_dgm.data import Dataset
from pyro_dgm.evaluate.matching import match_components, pairwise_distances
from pyro_dgm.models.principal_axes import principal_axes
from pyro_dgm.train import MixtureFit, compare_mixtures
from pyro_dgm.train.durable import replace_file


def compare_gmm(
    data: Dataset, *, folder: Path, dim: int = 10, device: torch.device | str = "cpu", **settings: Any
) -> ComparisonTable:
    """Fit mixtures of normals to a data set's first principal components by several methods.

    Before that images are centred and divided by one scale for all pixels; columns of tables are standardised, each by
    its own (see `principal_components`).

    Args:
        data: The data; its test split is what methods are judged by.
        folder: Where to write ``table.md``, ``table.json``, ``curves.png``, ``ellipses.png`` and a run folder per
            method.
        dim: Number of principal components, at least 2 (as many as there are, if fewer).
        device: Where to work.
        **settings: See `pyro_dgm.train.compare_mixtures`: ``methods``, ``components``, ``sweeps``, ``seed`` ...

    Returns:
        The table; its ``rows`` have the numbers.

    Raises:
        ValueError: If ``dim`` is below 2, or a setting is refused.
    """
    train, test = (part.to(device) for part in principal_components(data.train.x, data.test.x, dim=dim))
    fits = compare_mixtures(train, test, folder=folder, **settings)
    labels = data.train.labels
    count = next(iter(fits.values())).means.shape[0]
    name = data.description.name
    scaling = "pixels divided by one scale" if _images(data.train.x) else "columns standardised"
    title = f"Mixtures of {count} normals on {name}, {train.shape[1]} principal components of {len(train)} data"
    table = ComparisonTable(fits, labels, title=f"{title}, {scaling}")
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "table.md", table.markdown().encode())
    replace_file(folder / "table.json", f"{json.dumps(table.as_dict(), indent=1)}\n".encode())
    draw(fits, train, reference=fits[table.reference], folder=folder)
    return table


def principal_components(x: Tensor, other: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Centre, scale and project on the first principal components, all learnt from x alone.

    Columns of a table are divided by their standard deviations (a constant one is only centred), for their units
    differ. Pixels share a unit: images, data of two or more dimensions, are divided by one scale, the root of the
    pixels' mean variance. Else a pixel that is nearly always white would become the widest of all where it is not.

    Args:
        x: Shape ``(N, *shape)``, integers or real numbers; a ``shape`` of two or more dimensions makes them images.
        other: Shape ``(M, *shape)``.
        dim: How many components, at least 2.

    Returns:
        float64 of shapes ``(N, L)`` and ``(M, L)``, L the smaller of ``dim`` and what there is.

    Raises:
        ValueError: If there cannot be two of them.
    """
    rows, others = (part.flatten(1).double() for part in (x, other))
    found = min(dim, *rows.shape)
    if found < 2:
        raise ValueError(f"dim={dim} of data of shape {tuple(rows.shape)}: at least 2 components are needed to draw.")
    spread, mean = torch.std_mean(rows, dim=0, correction=0)
    if _images(x):
        spread = spread.square().mean().sqrt()
    scale = spread.where(spread > 0, 1)
    rows, others = (rows - mean) / scale, (others - mean) / scale
    axes = principal_axes(rows, found)[2]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the same picture on every machine
    return rows @ (axes * signs), others @ (axes * signs)


def _images(x: Tensor) -> bool:
    """Tell data of two or more dimensions from rows of a table."""
    return x.dim() > 2


def draw(fits: dict[str, MixtureFit], x: Tensor, *, reference: MixtureFit, folder: Path) -> None:
    """Draw curves and ellipses; components have the order, and so the colours, of the reference's."""
    curves = {name: (fit.curve.sweeps, fit.curve.seconds, fit.curve.objectives) for name, fit in fits.items()}
    plots.comparison_curves(curves).savefig(folder / "curves.png", dpi=150)
    mixtures = {}
    for name, fit in fits.items():
        ordered = fit.reordered(match_components(pairwise_distances(fit.means, reference.means)))
        mixtures[name] = (ordered.weights, ordered.means, ordered.covariances)
    plots.ellipses(x, mixtures).savefig(folder / "ellipses.png", dpi=120)
