# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A whole and the parts that it splits into, as bars that start where the last one ends."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pyro_dgm.plots.palette import EXACT, TEN


def part_bars(
    parts: Mapping[str, Sequence[float | int]],
    *,
    standard_errors: Mapping[str, Sequence[float | int]] | None = None,
    unit: str = "nats per datum",
    title: str = "A whole and its parts",
) -> Figure:
    """Draw several splits of one number, each as a row of bars end to end.

    Args:
        parts: For each bar its name and where it begins and ends, e.g. ``{"KL": (0, 20), "information": (0, 9),
            "marginal KL": (9, 20)}``. Begin at 0 to show a whole.
        standard_errors: For each name one number, in a sequence, drawn as an error bar of one standard error at
            the bar's end; NaN or a missing name draws none.
        unit: Unit of all numbers.
        title: What is shown.

    Returns:
        A figure with one axes; the first bar is at the top.

    Raises:
        ValueError: If there is no bar, or one is not two finite numbers.

    >>> figure = part_bars({"KL": (0, 20), "information": (0, 9), "marginal KL": (9, 20)})
    >>> len(figure.axes[0].patches)
    3
    """
    ends = {name: np.asarray(end, dtype=np.float64) for name, end in parts.items()}
    wrong = {name: end.tolist() for name, end in ends.items() if end.shape != (2,) or not np.isfinite(end).all()}
    if wrong or not ends:
        raise ValueError(f"part_bars got {wrong or 'no bars'}: every bar is two finite numbers, its begin and its end.")
    figure = Figure(figsize=(6.5, 0.8 + 0.45 * len(ends)), layout="constrained")
    axes = figure.add_subplot()
    for row, (name, (begin, end)) in enumerate(ends.items()):
        error = float(np.nan_to_num((standard_errors or {}).get(name, (np.nan,))[0]))
        axes.barh(row, end - begin, left=begin, color=TEN[row % len(TEN)], height=0.7)
        axes.errorbar([end], [row], xerr=[error], color=EXACT, capsize=3, linestyle="")
        axes.annotate(f" {end - begin:.2f}", (max(begin, end) + error, row), va="center", fontsize="small")
    axes.set_yticks(range(len(ends)), list(ends))
    axes.invert_yaxis()
    axes.axvline(0, color=EXACT, linewidth=0.8)
    axes.margins(x=0.12)
    axes.set(xlabel=unit, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
