# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The sizes that an image has at each scale of a multi-scale flow, and how many scales there can be."""

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import Size


def image_levels(owner: object, shape: Size, levels: int, *, last_is_squeezed: bool) -> list[tuple[int, int, int]]:
    """List what each scale works on where squeezing and factoring out half of the channels lead to the next.

    Args:
        owner: Who wants it; its class is named in messages.
        shape: Shape ``(C, H, W)`` of an image.
        levels: Number of scales.
        last_is_squeezed: Whether the last scale squeezes, too; otherwise it needs two pixels or more.

    Returns:
        Shapes ``(C * 2**i, H / 2**i, W / 2**i)``, the finest first.

    Raises:
        ValueError: If the shape is not that of an image, or there cannot be as many levels.

    >>> image_levels(object(), (3, 32, 32), 3, last_is_squeezed=True)
    [(3, 32, 32), (6, 16, 16), (12, 8, 8)]
    """
    name = type(owner).__name__
    sizes = positive_shape(owner, "shape", (shape,) if isinstance(shape, int) else shape)
    (levels,) = positive_shape(owner, "levels", (levels,))
    if len(sizes) != 3:
        raise ValueError(f"{name} got shape={sizes}: it needs that of an image, (C, H, W), as in (3, 32, 32).")
    channels, height, width = sizes
    halvings = 0
    while height % 2 ** (halvings + 1) == 0 and width % 2 ** (halvings + 1) == 0:
        halvings += 1
    single = height == width == 2**halvings  # what is left after all halvings is one pixel
    possible = halvings if last_is_squeezed or single else halvings + 1
    if levels > possible:
        most = f"at most levels={possible} is possible" if possible else "none is possible"
        raise ValueError(
            f"{name} got levels={levels} for shape={sizes}: height and width can be halved {halvings} times, so that "
            f"{most}. Pad or crop the images to a multiple of a power of two."
        )
    return [(channels * 2**i, height // 2**i, width // 2**i) for i in range(levels)]
