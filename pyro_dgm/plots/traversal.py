# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How a picture changes along each latent coordinate."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from pyro_dgm.plots.image_grid import ImageGrid
from pyro_dgm.plots.pixels import pixels


def traversal(
    grid: Tensor,
    *,
    levels: int = 256,
    shape: tuple[int, ...] | None = None,
    values: Sequence[float | int] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Latent traversal",
) -> Figure:
    """Show one row of images for each latent coordinate.

    Args:
        grid: Images in levels, shape ``(coordinates, steps, H, W)`` or ``(coordinates, steps, C, H, W)``, as
            `pyro_dgm.evaluate.traverse` returns them.
        levels: Number of values a pixel can take: 0 is black, levels - 1 is white.
        shape: Shape of one image, if the images are flat.
        values: The value of the coordinate in each column, written below it.
        names: The name of each coordinate, written beside its row; by default z1, z2, ...
        title: What is shown.

    Returns:
        A figure with one axes.

    Raises:
        ValueError: If there are not as many values as steps or names as coordinates, or as `samples` does.
    """
    images = pixels("traversal", grid, levels=levels, shape=shape, leading=("coordinates", "steps"))
    rows, steps = images.shape[:2]
    names = [f"$z_{{{row + 1}}}$" for row in range(rows)] if names is None else names
    if len(names) != rows or (values is not None and len(values) != steps):
        raise ValueError(
            f"traversal got a grid of {rows} coordinates x {steps} steps with {len(names)} names and "
            f"{'no' if values is None else len(values)} values: one name per row and one value per column are needed."
        )
    picture = ImageGrid(images, title)
    picture.name_rows(list(names))
    if values is not None:
        picture.name_columns([f"{value:g}" for value in values])
        picture.axes.set_xlabel("value of the coordinate")
    return picture.figure
