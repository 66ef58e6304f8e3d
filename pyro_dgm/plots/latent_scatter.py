# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A map of latent space, each point a datum with the colour of its label."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from pyro_dgm.plots.palette import TEN


def latent_scatter(z: Tensor, labels: Tensor | None = None, *, title: str = "Latent space") -> Figure:
    """Draw latent codes in the plane.

    Codes of more than two dimensions are projected on their first two principal components; the axes then say so, with
    the share of the variance that each shows.

    Args:
        z: Codes, shape ``(N, L)`` with L at least 2, such as `pyro_dgm.evaluate.embed` returns.
        labels: Labels of shape ``(N,)``. Up to ten integer classes get a colour, and their number at their median;
            anything else is drawn on a colour scale.
        title: What is shown.

    Returns:
        A figure with one axes, and a colour bar if the labels are not classes.

    Raises:
        ValueError: If z is not at least two codes of at least two dimensions, has NaN, or the labels do not match it.
    """
    if z.dim() != 2 or z.shape[1] < 2 or len(z) < 2:
        raise ValueError(f"latent_scatter got z of shape {tuple(z.shape)}: it needs (N, L) with N and L at least 2.")
    if labels is not None and labels.shape != z.shape[:1]:
        raise ValueError(
            f"latent_scatter got labels of shape {tuple(labels.shape)} for z of shape {tuple(z.shape)}: one label per "
            f"row, shape ({len(z)},), is needed."
        )
    points = z.detach().double().cpu().numpy()
    if not np.isfinite(points).all():
        raise ValueError("latent_scatter got z with NaN or infinity: check the guide that made it.")
    points, names = _plane(points)
    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    size = float(np.clip(8000 / len(points), 3, 20))
    across, up = points.T
    classes = None if labels is None or labels.is_floating_point() else labels.unique().cpu().numpy()
    if labels is None:
        axes.scatter(across, up, s=size, color=TEN[0], alpha=0.7, linewidths=0)
    elif classes is None or len(classes) > len(TEN):
        dots = axes.scatter(across, up, s=size, c=labels.cpu().numpy(), cmap="viridis", alpha=0.8, linewidths=0)
        figure.colorbar(dots, label="label")
    else:
        _classes(axes, points, labels.cpu().numpy(), size)
    return figure


def _plane(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Project on two dimensions, and name them."""
    if points.shape[1] == 2:
        return points, ["$z_1$", "$z_2$"]
    from sklearn.decomposition import PCA  # here, because only this case needs it and it takes a second to load

    pca = PCA(2, svd_solver="full").fit(points)
    shares = 100 * pca.explained_variance_ratio_
    names = [f"principal component {i + 1} ({shares[i]:.0f} % of the variance)" for i in range(2)]
    return pca.transform(points), names


def _classes(axes: Axes, points: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], size: float) -> None:
    """Colour the points by class and write each class at its median, for those who cannot tell the colours apart."""
    for number, label in enumerate(np.unique(labels)):
        across, up = points[labels == label].T
        axes.scatter(across, up, s=size, color=TEN[number], alpha=0.8, linewidths=0, label=str(label))
        axes.text(
            np.median(across),
            np.median(up),
            str(label),
            color="black",
            fontsize=13,
            fontweight="bold",
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=3,
        )
    legend = axes.legend(title="label", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([30.0])
