# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How a bound tightens as it gets more particles."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pyro_dgm.plots.palette import EXACT, TRAIN


def bound_vs_particles(
    particles: Sequence[int],
    means: Sequence[float | int],
    standard_errors: Sequence[float | int] | None = None,
    *,
    exact: float | int | None = None,
    unit: str = "nats per datum",
    title: str = "Bound against number of particles",
) -> Figure:
    """Draw the negative bound against K, on a logarithmic axis.

    Args:
        particles: Numbers of particles K, at least 1 each.
        means: The negative bound at each K, lower is tighter: ``[e.mean for e in bound_curve(...)]``.
        standard_errors: Its standard errors, drawn as error bars of one standard error; NaN or ``None`` draws none.
        exact: The exact -log p(x), where theory gives it.
        unit: Unit of the bound.
        title: What is shown.

    Returns:
        A figure with one axes.

    Raises:
        ValueError: If the lengths differ, there is no point, a K is below 1, or a mean is not finite.
    """
    errors = [np.nan] * len(means) if standard_errors is None else standard_errors
    if not len(particles) == len(means) == len(errors) or len(means) == 0:
        raise ValueError(
            f"bound_vs_particles got {len(particles)} numbers of particles, {len(means)} means and {len(errors)} "
            f"standard errors: as many of each are needed, and at least one."
        )
    if min(particles) < 1 or not np.isfinite(means).all():
        raise ValueError(
            f"bound_vs_particles got particles={list(particles)} and means={list(means)}: K is at least 1, and a mean "
            f"is a finite number."
        )
    order = np.argsort(particles)
    x, y, bars = (np.asarray(column, dtype=np.float64)[order] for column in (particles, means, errors))
    figure = Figure(figsize=(5.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    label = "bound" if standard_errors is None else "bound $\\pm$ s.e."
    axes.errorbar(x, y, yerr=np.nan_to_num(bars), color=TRAIN, marker="o", capsize=3, linewidth=1.8, label=label)
    if exact is not None:
        axes.axhline(exact, color=EXACT, linestyle="--", linewidth=1.2, label="exact $-\\log p(x)$")
    axes.set(xscale="log", xlabel="number of particles K", title=title)
    axes.set_ylabel(f"negative bound ({unit}), lower is tighter")
    axes.set_xticks(x, [f"{count:g}" for count in x])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
