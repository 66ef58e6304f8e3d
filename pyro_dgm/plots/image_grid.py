# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Images side by side in one picture, with white lines between them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_dgm.plots.pixels import Array

# Width of a figure in inches at which a column of text fits it.
WIDTH = 7.0


class ImageGrid:
    """A figure with one axes that shows rows of images.

    Args:
        images: Shape ``(rows, columns, H, W, 3)`` in 0 ... 1; NaN images stay blank.
        title: What is shown.

    Attributes:
        figure: The figure.
        axes: Its only axes, in image pixels, ticks off.
        gap: Pixels of white between two images, a fourteenth of an image.
    """

    def __init__(self, images: Array, title: str) -> None:
        self.rows, self.columns, self.height, self.width = images.shape[:4]
        self.gap = max(1, min(self.height, self.width) // 14)
        canvas = tile(images, self.gap)
        pixel = min(WIDTH / canvas.shape[1], 9.0 / canvas.shape[0], 1.2 / max(self.height, self.width))
        size = (max(3.0, canvas.shape[1] * pixel + 0.9), max(1.2, canvas.shape[0] * pixel + 0.6))
        self.figure = Figure(figsize=size, layout="constrained")
        self.axes: Axes = self.figure.add_subplot()
        self.axes.imshow(canvas, interpolation="nearest", vmin=0, vmax=1)
        self.axes.set(xticks=[], yticks=[])
        self.axes.spines[:].set_visible(False)
        self.axes.tick_params(length=0)
        self.axes.set_title(title)

    def name_rows(self, names: list[str]) -> None:
        """Write a name to the left of each row."""
        step = self.height + self.gap
        self.axes.set_yticks([self.gap + row * step + (self.height - 1) / 2 for row in range(self.rows)], names)

    def name_columns(self, names: list[str]) -> None:
        """Write a name under each column."""
        step = self.width + self.gap
        self.axes.set_xticks([self.gap + column * step + (self.width - 1) / 2 for column in range(self.columns)], names)


def tile(images: Array, gap: int) -> Array:
    """Put images of shape ``(rows, columns, H, W, 3)`` onto one canvas with ``gap`` white pixels around each."""
    padded = np.pad(np.nan_to_num(images, nan=1.0), ((0, 0), (0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=1.0)
    rows, columns, height, width, channels = padded.shape
    canvas = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return np.pad(canvas, ((0, gap), (0, gap), (0, 0)), constant_values=1.0)


def wrap(images: Array, columns: int) -> Array:
    """Break a list of images, shape ``(N, H, W, 3)``, into rows; the rest of the last row is NaN."""
    rows = -(-len(images) // columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), np.nan)
    return np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
