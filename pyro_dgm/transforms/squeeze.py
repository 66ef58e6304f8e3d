# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Trade height and width of an image for channels: each square of four pixels becomes one pixel."""

import torch
from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size


class Squeeze(FlowTransform):
    r"""Turn an image (C, H, W) into one of (4 C, H / 2, W / 2); no volume changes.

    .. math:: y_{k C + c,\, i,\, j} = x_{c,\, 2 i + r_k,\, 2 j + s_k}, \qquad
              (r_k, s_k) = (0, 0), (1, 1), (0, 1), (1, 0), \qquad \log|\det J| = 0

    Channels come out by the place of a pixel in its square, and those of one place stand together. The first two
    places are one colour of a chessboard, the last two the other: a coupling that lets the first half of the channels
    pass sees a chessboard on the image.

    Args:
        shape: Shape ``(C, H, W)`` of an image x, of even height and width.

    Attributes:
        out_shape: ``(4 C, H / 2, W / 2)``.

    Raises:
        ValueError: If the shape is not that of an image, or its height or width is odd.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.6, which leaves the order of the places open.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 2, 2)
        >>> Squeeze((1, 2, 2))(x).flatten()
        tensor([0., 3., 1., 2.])
    """

    def __init__(self, shape: Size) -> None:
        sizes = (shape,) if isinstance(shape, int) else shape
        if len(sizes) != 3 or sizes[1] % 2 or sizes[2] % 2:
            raise ValueError(
                f"Squeeze got shape={sizes}: it takes squares of two by two pixels, so it needs (C, H, W) of even "
                f"height and width. Crop the images, or pad them by a row or a column, or squeeze fewer times."
            )
        channels, height, width = sizes
        super().__init__(sizes, out_shape=(4 * channels, height // 2, width // 2))

    def bind(self, context: Tensor | None) -> Parameters:
        """Give nothing: all images are treated alike."""
        return ()

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        _, height, width = self.out_shape
        squares = x.unflatten(-1, (width, 2)).unflatten(-3, (height, 2))  # (*batch, C, H / 2, 2, W / 2, 2)
        (a, b), (c, d) = (row.unbind(-1) for row in squares.unbind(-3))
        return torch.cat([a, d, b, c], -3), x.new_zeros(x.shape[:-3])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        a, d, b, c = y.unflatten(-3, (4, self.shape[0])).unbind(-4)  # (*batch, C, H / 2, W / 2) each
        rows = torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -3)
        return rows.reshape(*y.shape[:-3], *self.shape), y.new_zeros(y.shape[:-3])
