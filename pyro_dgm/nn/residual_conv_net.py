# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A convolutional network with skip connections that keeps the size of images: what RealNVP's couplings are made of."""

from torch import Tensor, nn

from pyro_dgm.nn.check_images import check_images
from pyro_dgm.nn.net import Net
from pyro_dgm.nn.pixel_layout import pixel_layout
from pyro_dgm.nn.shape import positive_shape


class ResidualConvNet(Net):
    r"""Map images through a 3x3 convolution, residual blocks, and a 1x1 convolution.

    .. math:: h_0 = K_{in} * x, \qquad h_{b} = h_{b-1} + K'_b * a(K_b * a(h_{b-1})), \qquad y = K_{out} * a(h_B)

    a is the activation; K and K' are 3x3. Every K' starts as zeros, so that a new block passes on what it gets, and a
    deep network starts as a shallow one does. There is no batch norm, for which the paper's networks are known: it
    makes what becomes of one image depend on the others.

    Args:
        in_shape: Shape ``(C, H, W)`` of one image that comes in.
        out_shape: Shape ``(C', H, W)`` of one image that goes out.
        channels: Channels of the hidden layers; 32 in the paper, 64 for CIFAR-10.
        blocks: Number B of residual blocks; in the paper 4 for images of 32 x 32, 2 of 64 x 64, 8 for CIFAR-10.
        activation: Nonlinearity in front of every convolution but the first.

    Raises:
        ValueError: If a number is not positive, a shape is not that of an image, or heights or widths differ.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, sections 3.3 and 4.1; blocks as in He et al. (ECCV 2016),
    arXiv:1603.05027, figure 1(b), without their batch norm.

    Example:
        >>> ResidualConvNet((2, 8, 8), (4, 8, 8), channels=16)(torch.rand(5, 2, 8, 8)).shape
        torch.Size([5, 4, 8, 8])
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        channels: int = 64,
        blocks: int = 2,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(in_shape, out_shape)
        check_images(self)
        (width,), (depth,) = positive_shape(self, "channels", (channels,)), positive_shape(self, "blocks", (blocks,))
        self.first = nn.Conv2d(self.in_shape[0], width, 3, padding=1)
        self.blocks = nn.ModuleList(_block(width, activation) for _ in range(depth))
        self.last = nn.Sequential(activation(), nn.Conv2d(width, self.out_shape[0], 1))

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H, W)``."""
        hidden = self.first(pixel_layout(x))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


def _block(channels: int, activation: type[nn.Module]) -> nn.Sequential:
    """Make what a block adds to its input: nothing before training."""
    last = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    return nn.Sequential(activation(), nn.Conv2d(channels, channels, 3, padding=1), activation(), last)
