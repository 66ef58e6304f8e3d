# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a network gets and gives images of one height and width, as those of convolutions of stride 1 do."""

from pyro_dgm.nn.net import Net


def check_images(net: Net) -> None:
    """Say so if one of a network's two shapes is not that of an image, or the heights or widths differ.

    Raises:
        ValueError: If they do.
    """
    if len(net.in_shape) != 3 or len(net.out_shape) != 3 or net.in_shape[1:] != net.out_shape[1:]:
        raise ValueError(
            f"{type(net).__name__} got in_shape={net.in_shape} and out_shape={net.out_shape}: it maps images to images "
            f"of the same size, as in (2, 8, 8) and (4, 8, 8)."
        )
