# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Data next to what a model makes of them."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pyro_dgm.plots.image_grid import ImageGrid, wrap
from pyro_dgm.plots.pixels import pixels


def reconstructions(
    x: Tensor,
    x_hat: Tensor,
    *,
    levels: int = 256,
    shape: tuple[int, ...] | None = None,
    columns: int = 10,
    title: str = "Data and reconstructions",
) -> Figure:
    """Show each datum with its reconstruction below it.

    Args:
        x: Data in levels, shape ``(N, H, W)`` or ``(N, C, H, W)``, C being 1 or 3.
        x_hat: Their reconstructions in levels, integers or means, of the same shape.
        levels: Number of values a pixel can take: 0 is black, levels - 1 is white.
        shape: Shape of one image, if both are flat.
        columns: Data in a row.
        title: What is shown.

    Returns:
        A figure with one axes: rows of data and rows of reconstructions in turn.

    Raises:
        ValueError: If the shapes differ, or as `samples` does.
    """
    if x.shape != x_hat.shape:
        raise ValueError(
            f"reconstructions got x of shape {tuple(x.shape)} and x_hat of shape {tuple(x_hat.shape)}: they must agree."
        )
    if columns < 1:
        raise ValueError(f"reconstructions got columns={columns}: a row has at least one image.")
    columns = min(columns, max(len(x), 1))
    above = wrap(pixels("reconstructions", x, levels=levels, shape=shape), columns)
    below = wrap(pixels("reconstructions", x_hat, levels=levels, shape=shape), columns)
    grid = ImageGrid(np.stack([above, below], axis=1).reshape(-1, *above.shape[1:]), title)
    grid.name_rows(["data", "model"] * len(above))
    return grid.figure
