# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The sizes that an image has at each scale of a multi-scale flow, and how many scales there can be."""

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import Size

MOST = 3  # scales where nobody asks for a number


def image_scales(
    owner: object, shape: Size, scales: int | None = None, *, last_is_squeezed: bool
) -> list[tuple[int, int, int]]:
    """List what each scale works on where squeezing and factoring out half of the channels lead to the next.

    Args:
        owner: Who wants it; its class is named in messages.
        shape: Shape ``(C, H, W)`` of an image.
        scales: Number of scales; None for as many as height and width allow, 3 at most.
        last_is_squeezed: Whether the last scale squeezes, too; otherwise it needs two pixels or more.

    Returns:
        Shapes ``(C * 2**i, H / 2**i, W / 2**i)``, the finest first.

    Raises:
        ValueError: If the shape is not that of an image, or there cannot be as many scales.

    >>> image_scales(object(), (3, 32, 32), last_is_squeezed=True)
    [(3, 32, 32), (6, 16, 16), (12, 8, 8)]
    """
    name = type(owner).__name__
    sizes = positive_shape(owner, "shape", (shape,) if isinstance(shape, int) else shape)
    if len(sizes) != 3:
        raise ValueError(f"{name} got shape={sizes}: it needs that of an image, (C, H, W), as in (3, 32, 32).")
    channels, height, width = sizes
    halvings = 0
    while height % 2 ** (halvings + 1) == 0 and width % 2 ** (halvings + 1) == 0:
        halvings += 1
    single = height == width == 2**halvings  # what is left after all halvings is one pixel
    possible = halvings if last_is_squeezed or single else halvings + 1
    wanted = max(1, min(possible, MOST)) if scales is None else scales
    if not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"{name} got scales={scales}: it must be a positive integer, or None.")
    if wanted > possible:
        most = f"at most scales={possible} is possible" if possible else "no scale is possible"
        raise ValueError(
            f"{name} got scales={scales} for shape={sizes}: {most}, as height and width can be halved {halvings} "
            f"times. For {wanted}, pad or crop the images to multiples of {2**wanted}."
        )
    return [(channels * 2**i, height // 2**i, width // 2**i) for i in range(wanted)]
