# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How fast several methods came to their bound: against the sweeps they made, and against the seconds they took."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_dgm.plots.palette import TEN

Curve = tuple[Sequence[float | int], Sequence[float | int], Sequence[float | int]]


def comparison_curves(
    curves: Mapping[str, Curve], *, unit: str = "nats per datum", title: str = "Objective of each method"
) -> Figure:
    """Draw each method's objective twice, higher is better, on logarithmic axes, as methods differ by orders.

    A method of a single point is drawn as that point. Against seconds a curve begins at its first point after zero, for
    which a logarithm has no place; against sweeps, too, if that point is further than two, for a straight line across
    orders says nothing. The range of the vertical axis leaves the first tenth of each curve out, which would press
    everything else flat.

    Args:
        curves: By name: sweeps, seconds and objectives, three sequences of one length.
        unit: Unit of the objectives.
        title: What is shown.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: If there is no curve, one has no point or lengths differ, or a number is not finite.

    >>> figure = comparison_curves({"EM": ([1, 2, 3], [0.1, 0.2, 0.3], [-9, -7, -6.5]), "NUTS": ([60], [9], [-6.8])})
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['sweeps through the data', 'seconds']
    """
    columns = {name: [np.asarray(part, dtype=np.float64) for part in curve] for name, curve in curves.items()}
    for name, parts in columns.items():
        sizes = {part.shape for part in parts}
        if len(parts) != 3 or len(sizes) != 1 or parts[0].ndim != 1 or not len(parts[0]):
            raise ValueError(f"comparison_curves got of {name!r} {sizes}: as many sweeps, seconds and objectives.")
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError(f"comparison_curves got a number of {name!r} that is not finite.")
    if not columns:
        raise ValueError("comparison_curves got no curves: there is nothing to draw.")
    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    figure.suptitle(title)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for number, (name, (sweeps, seconds, nats)) in enumerate(columns.items()):
        color, marker = TEN[number % len(TEN)], "o" if len(nats) == 1 else ""
        first = 1 if len(sweeps) > 1 and sweeps[0] == 0 and sweeps[1] > 2 else 0
        left.plot(sweeps[first:], nats[first:], color=color, linewidth=1.8, marker=marker, label=name)
        some = seconds > 0
        marker = "o" if some.sum() == 1 else ""
        right.plot(seconds[some], nats[some], color=color, linewidth=1.8, marker=marker)
    left.set_xscale("symlog", linthresh=1)  # it has room for zero
    right.set_xscale("log")
    for axes, label in ((left, "sweeps through the data"), (right, "seconds")):
        _finish(axes, label, unit, [parts[2] for parts in columns.values()])
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _finish(axes: Axes, label: str, unit: str, objectives: list[np.ndarray]) -> None:
    axes.set(xlabel=label, ylabel=f"objective ({unit}), higher is better")
    axes.spines[["top", "right"]].set_visible(False)
    late = np.concatenate([nats[len(nats) // 10 :] for nats in objectives])
    if late.min() < late.max():
        margin = 0.08 * (late.max() - late.min())
        axes.set_ylim(late.min() - margin, late.max() + margin)
