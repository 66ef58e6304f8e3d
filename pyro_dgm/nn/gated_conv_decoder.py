# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The convolutional decoder of the Sylvester flow paper: it turns a vector into numbers for every pixel."""

import math

from torch import Tensor, nn

from pyro_dgm.nn.gated_conv_transpose2d import GatedConvTranspose2d
from pyro_dgm.nn.net import Net


class GatedConvDecoder(Net):
    """Map a vector through six gated transposed convolutions and a head of P raw parameters for every pixel.

    The vector is an image of one pixel; the first kernel is as large as a quarter of the image (7x7 for 28x28, 7x5
    for 28x20), the others are 5x5, channels 2w -> 2w -> w (upsampling) -> w -> w (upsampling) -> w. The head is one 1x1
    convolution for P <= 2, and a 5x5 one to 8w channels followed by a 1x1 one for more, as for the 256-way softmax of
    the paper's Frey faces.

    Args:
        in_shape: Shape of one input; it is flattened.
        out_shape: ``(P, H, W)`` or ``(P, C, H, W)``, with H and W of any size.
        width: Channels w of the last hidden layer; 32 in the paper.

    Raises:
        ValueError: If ``out_shape`` has another length, or at call if the shape of x is wrong.

    Source: van den Berg et al. (UAI 2018), arXiv:1803.05649; the layers are those of the
    authors' code, riannevdberg/sylvester-flows.

    Example:
        >>> GatedConvDecoder((64,), (1, 28, 28))(torch.rand(4, 64)).shape
        torch.Size([4, 1, 28, 28])
    """

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], *, width: int = 32) -> None:
        super().__init__(in_shape, out_shape)
        if len(self.out_shape) not in (3, 4):
            raise ValueError(
                f"GatedConvDecoder got out_shape={self.out_shape}: it must be (P, H, W) or (P, C, H, W), with P raw "
                "parameters for every pixel. For data that are not images use MLP or GatedMLP."
            )
        parameters, *channels, height, w = self.out_shape
        middle, last = zip(*(_upsampling(size) for size in (height, w)), strict=True)
        self.layers = nn.Sequential(
            GatedConvTranspose2d(math.prod(self.in_shape), 2 * width, (math.ceil(height / 4), math.ceil(w / 4))),
            GatedConvTranspose2d(2 * width, 2 * width, 5, padding=2),
            GatedConvTranspose2d(2 * width, width, 5, stride=2, padding=2, output_padding=middle),
            GatedConvTranspose2d(width, width, 5, padding=2),
            GatedConvTranspose2d(width, width, 5, stride=2, padding=2, output_padding=last),
            GatedConvTranspose2d(width, width, 5, padding=2),
        )
        out = parameters * math.prod(channels)
        if parameters <= 2:
            self.head = nn.Sequential(nn.Conv2d(width, out, 1))
        else:
            self.head = nn.Sequential(nn.Conv2d(width, 8 * width, 5, padding=2), nn.Conv2d(8 * width, out, 1))

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, *in_shape)`` to ``(N, P * C, H, W)``."""
        return self.head(self.layers(x.reshape(len(x), math.prod(self.in_shape), 1, 1)))


def _upsampling(size: int) -> tuple[int, int]:
    """Output paddings of the two upsampling layers, which map n to 2n - 1 without one and to 2n with one."""
    return 1 - math.ceil(size / 2) % 2, 1 - size % 2
