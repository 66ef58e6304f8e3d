# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How the loss fell while a model was trained, with the warm-up marked."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_dgm.plots.palette import SHADE, TRAIN, VALID

Column = npt.NDArray[np.float64]


def learning_curve(
    history: Mapping[str, Sequence[float | int]],
    *,
    epoch: str = "epoch",
    train: str = "train",
    valid: str | None = "valid",
    warmup_end: float | int | None = None,
    unit: str = "nats per datum",
    title: str = "Learning curve",
) -> Figure:
    """Draw the training and validation loss against the epoch.

    During warm-up the training loss is not yet a bound on -log p(x) (its KL terms weigh less than 1), so that part is
    shaded, takes no part in the range of the vertical axis, and the best epoch is looked for after it.

    Args:
        history: Columns of equal length, such as those of a run's metrics; NaN where a value was not measured.
        epoch: Name of the column with the epoch.
        train: Name of the column with the training loss.
        valid: Name of the column with the validation loss; ``None`` if there is none.
        warmup_end: The epoch at which the weight of the KL terms reaches 1.
        unit: Unit of the losses.
        title: What is shown.

    Returns:
        A figure with one axes.

    Raises:
        ValueError: If a column is missing, is empty or has another length than the epochs.
    """
    wanted = [epoch, train] if valid is None else [epoch, train, valid]
    columns = {name: _column(history, name, epoch) for name in wanted}
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="epoch", ylabel=f"negative bound ({unit}), lower is better", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    if warmup_end is not None:
        axes.axvspan(float(columns[epoch].min()), warmup_end, color=SHADE, zorder=0, label="warm-up")
    _line(axes, columns[epoch], columns[train], color=TRAIN, label="training")
    if valid is not None:
        _line(axes, columns[epoch], columns[valid], color=VALID, label="validation")
        _mark_best(axes, columns[epoch], columns[valid], warmup_end)
    _focus(axes, columns[epoch], [columns[name] for name in wanted[1:]], warmup_end)
    axes.legend(frameon=False)
    return figure


def _column(history: Mapping[str, Sequence[float | int]], name: str, epoch: str) -> Column:
    if name not in history:
        raise ValueError(f"learning_curve needs column {name!r} and history has {sorted(history)}.")
    column = np.asarray(history[name], dtype=np.float64)
    if column.ndim != 1 or len(column) < 1 or len(column) != len(history[epoch]):
        raise ValueError(
            f"learning_curve got column {name!r} of shape {column.shape} for {len(history[epoch])} values of "
            f"{epoch!r}: both need one number per epoch, and at least one."
        )
    if not np.isfinite(column).any():
        raise ValueError(f"learning_curve got column {name!r} without one finite number, so there is nothing to draw.")
    return column


def _line(axes: Axes, epochs: Column, losses: Column, *, color: str, label: str) -> None:
    """Join the measured points; a curve of one point is drawn as that point."""
    known = np.isfinite(losses)
    marker = "o" if known.sum() == 1 else ""
    axes.plot(epochs[known], losses[known], color=color, label=label, marker=marker, linewidth=1.8)


def _mark_best(axes: Axes, epochs: Column, losses: Column, warmup_end: float | int | None) -> None:
    allowed = np.isfinite(losses) & (epochs >= (-np.inf if warmup_end is None else warmup_end))
    if not allowed.any():
        return
    best = int(np.argmin(np.where(allowed, losses, np.inf)))
    label = f"best: {losses[best]:.2f} at epoch {epochs[best]:g}"
    axes.plot(epochs[best], losses[best], color=VALID, marker="o", markerfacecolor="white", linestyle="", label=label)


def _focus(axes: Axes, epochs: Column, losses: list[Column], warmup_end: float | int | None) -> None:
    """Choose the vertical range without the steep first epochs, which would press everything else flat."""
    start = max(-np.inf if warmup_end is None else warmup_end, float(np.quantile(epochs, 0.1)))
    late = np.concatenate([column[epochs >= start] for column in losses])
    late = late[np.isfinite(late)]
    if late.size < 2 or late.min() == late.max():
        return
    margin = 0.08 * (late.max() - late.min())
    axes.set_ylim(late.min() - margin, late.max() + 3 * margin)
