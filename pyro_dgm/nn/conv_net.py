# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A plain convolutional network that keeps the size of images: what Glow's couplings are made of."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_dgm.nn.check_images import check_images
from pyro_dgm.nn.net import Net
from pyro_dgm.nn.pixel_layout import pixel_layout
from pyro_dgm.nn.shape import positive_shape


class ConvNet(Net):
    """Map images through convolutions of stride 1 with a nonlinearity between them.

    Args:
        in_shape: Shape ``(C, H, W)`` of one image that comes in.
        out_shape: Shape ``(C', H, W)`` of one image that goes out.
        hidden: Channels of the hidden layers; ``()`` makes a single convolution.
        kernels: Size of each layer's kernel, odd, one more than there are hidden layers.
        activation: Nonlinearity after every hidden layer.

    Raises:
        ValueError: If a shape is not that of an image, heights or widths differ, or a kernel is even.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, appendix B: 3x3, 1x1, 3x3, there with 512 channels.

    Example:
        >>> ConvNet((2, 8, 8), (4, 8, 8), hidden=(16, 16))(torch.rand(5, 2, 8, 8)).shape
        torch.Size([5, 4, 8, 8])
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (64, 64),
        kernels: Sequence[int] = (3, 1, 3),
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(in_shape, out_shape)
        check_images(self)
        widths = (self.in_shape[0], *positive_shape(self, "hidden", hidden), self.out_shape[0])
        kernels = positive_shape(self, "kernels", kernels)
        if len(kernels) != len(widths) - 1 or any(size % 2 == 0 for size in kernels):
            raise ValueError(
                f"ConvNet got kernels={kernels} for {len(widths) - 1} layers: each layer needs one odd size, e.g. "
                f"kernels={(3,) * (len(widths) - 1)}."
            )
        layers: list[nn.Module] = []
        rectified = activation is nn.ReLU  # no gradient needs what a convolution gave: written over, it costs no memory
        for (n, m), size in zip(pairwise(widths), kernels, strict=True):
            layers += [nn.Conv2d(n, m, size, padding=size // 2), nn.ReLU(inplace=True) if rectified else activation()]
        self.layers = nn.Sequential(*layers[:-1])

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H, W)``."""
        return self.layers(pixel_layout(x))
