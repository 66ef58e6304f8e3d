# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What several mixtures of normal distributions make of the same data: small multiples with ellipses."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from pyro_dgm.plots.palette import EXACT, TEN

COLOURS = tuple(colour for colour in TEN if colour not in ("#94a4a2", "#717581"))  # points are grey
STYLES: tuple[Literal["solid", "dashed", "dotted"], ...] = ("solid", "dashed", "dotted")

Array = npt.NDArray[np.float64]
Parts = tuple[Tensor, Tensor, Tensor]


def ellipses(
    x: Tensor,
    mixtures: Mapping[str, Parts],
    labels: Tensor | None = None,
    *,
    radius: int | float = 2,
    columns: int = 3,
    title: str = "Components in the first two coordinates",
) -> Figure:
    """Draw each mixture's components over the data, in the plane of the first two coordinates.

    An ellipse holds the points within so many standard deviations of a component's marginal distribution. Points are
    grey, and component k has the same colour in all panels (match the mixtures' order first); with labels, points have
    the colours and ellipses are dark. The fainter an ellipse is the less it weighs, and one that weighs less than a
    twentieth of its fair share 1 / K is not drawn. All panels have one range: the data's, and as much more as the
    ellipses need, up to half of the data's range on each side.

    Args:
        x: Data, shape ``(N, D)`` with D at least 2.
        mixtures: By name: weights ``(K,)``, means ``(K, D)`` and covariances ``(K, D, D)``, or ``(K, 2, 2)``, those
            of the first two coordinates.
        labels: Integer classes of the data, shape ``(N,)``, by which points are coloured.
        radius: How many standard deviations.
        columns: Panels in a row.
        title: What is shown.

    Returns:
        A figure with one axes per mixture.

    Raises:
        ValueError: If there is no mixture, a shape is another, or a covariance is none.

    >>> import torch
    >>> three = torch.full((3,), 1 / 3), torch.randn(3, 2), torch.eye(2).expand(3, 2, 2)
    >>> figure = ellipses(torch.randn(50, 2), {"EM": three, "mean field": three})
    >>> [len(axes.patches) for axes in figure.axes]
    [3, 3]
    """
    if x.dim() != 2 or x.shape[1] < 2 or not mixtures or columns < 1:
        raise ValueError(
            f"ellipses got x of shape {tuple(x.shape)}, {len(mixtures)} mixtures and columns={columns}: it needs x of "
            f"shape (N, D) with D at least 2, a mixture and a column."
        )
    if labels is not None and labels.shape != x.shape[:1]:
        raise ValueError(f"ellipses got labels of shape {tuple(labels.shape)} for {len(x)} data: one each is needed.")
    wide = min(columns, len(mixtures))
    high = -(-len(mixtures) // wide)
    figure = Figure(figsize=(3.4 * wide, 3.2 * high + 0.4), layout="constrained")
    figure.suptitle(title)
    points = _array(x[:, :2])
    colours = "#777777" if labels is None else [TEN[int(label) % len(TEN)] for label in labels.tolist()]
    size = float(np.clip(6000 / len(points), 3, 12))
    drawn = []
    for number, (name, parts) in enumerate(mixtures.items()):
        axes = figure.add_subplot(high, wide, number + 1)
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colours, alpha=0.6, linewidths=0)
        axes.set(title=name)
        axes.spines[["top", "right"]].set_visible(False)
        drawn.append(_draw(axes, name, parts, radius, palette=COLOURS if labels is None else (EXACT,)))
    lowest, highest = _limits(points, np.concatenate(drawn))
    for axes in figure.axes:
        axes.set(xlim=(lowest[0], highest[0]), ylim=(lowest[1], highest[1]))
    return figure


def _draw(axes: Axes, name: str, parts: Parts, radius: int | float, *, palette: Sequence[str]) -> Array:
    """Draw the components; give two corners of the box around each one drawn, shape ``(2 K, 2)``."""
    weights, means, covariances = (_array(part) for part in parts)
    count, corners = len(weights), [np.empty((0, 2))]
    if means.shape[:1] != (count,) or covariances.shape[:1] != (count,) or covariances.shape[1] < 2:
        raise ValueError(
            f"ellipses got of {name!r} weights, means and covariances of shapes {weights.shape}, {means.shape} and "
            f"{covariances.shape}: (K,), (K, D) and (K, D, D) are needed."
        )
    for k, (weight, mean) in enumerate(zip(weights, means, strict=True)):
        values, axes_of = np.linalg.eigh(covariances[k, :2, :2])
        if not values.min() >= 0:
            raise ValueError(f"ellipses got of {name!r} a covariance of component {k} with the eigenvalues {values}.")
        if weight * count < 0.05:
            continue
        width, height = 2 * radius * np.sqrt(values)
        angle = float(np.degrees(np.arctan2(axes_of[1, 0], axes_of[0, 0])))
        seen = float(np.clip(0.25 + 0.75 * weight * count, 0.25, 1))
        oval = Ellipse((mean[0], mean[1]), width, height, angle=angle, facecolor="none", linewidth=1.8, alpha=seen)
        oval.set_edgecolor(palette[k % len(palette)])
        oval.set_linestyle(STYLES[k // len(palette) % len(STYLES)] if len(palette) > 1 else "solid")
        axes.add_patch(oval)
        axes.plot(mean[0], mean[1], marker="+", markersize=6, color=EXACT, alpha=seen)
        reach = radius * np.sqrt(np.diagonal(covariances[k])[:2])
        corners.append(np.stack([mean[:2] - reach, mean[:2] + reach]))
    return np.concatenate(corners)


def _limits(points: Array, corners: Array) -> tuple[Array, Array]:
    """The range of points and ellipses, of which no more than half of the points' range on each side counts."""
    low, high = points.min(0), points.max(0)
    most = 0.5 * np.where(high > low, high - low, 2.0)
    lower, upper = (find(np.concatenate([points, corners]), 0) for find in (np.min, np.max))
    low, high = np.maximum(lower, low - most), np.minimum(upper, high + most)
    margin = 0.05 * np.where(high > low, high - low, 20.0)
    return low - margin, high + margin


def _array(part: Tensor) -> Array:
    return part.detach().double().cpu().numpy()
