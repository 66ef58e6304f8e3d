# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A sheet of images, such as samples of a model."""

import math

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dgm.plots.image_grid import ImageGrid, wrap
from pyro_dgm.plots.pixels import pixels


def samples(
    x: Tensor,
    *,
    levels: int = 256,
    shape: tuple[int, ...] | None = None,
    columns: int | None = None,
    title: str = "Samples",
) -> Figure:
    """Show images in rows, left to right and top to bottom.

    Args:
        x: Images in levels, integers or means, shape ``(N, H, W)`` or ``(N, C, H, W)``, C being 1 or 3.
        levels: Number of values a pixel can take: 0 is black, levels - 1 is white.
        shape: Shape of one image, if x is flat: ``(N, H * W)``.
        columns: Images in a row; by default as many as make the sheet about square.
        title: What is shown.

    Returns:
        A figure with one axes.

    Raises:
        ValueError: If x is empty, is not images, has NaN or values outside the levels, or ``columns < 1``.
    """
    images = pixels("samples", x, levels=levels, shape=shape)
    if columns is None:
        columns = math.ceil(math.sqrt(len(images)))
    if columns < 1:
        raise ValueError(f"samples got columns={columns}: a row has at least one image.")
    return ImageGrid(wrap(images, min(columns, len(images))), title).figure
