# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The convolutional encoder of the Sylvester flow paper: it turns an image into a vector."""

import math

from torch import Tensor, nn

from pyro_dgm.nn.gated_conv2d import GatedConv2d
from pyro_dgm.nn.net import Net


class GatedConvEncoder(Net):
    """Map an image through six gated convolutions and one linear layer.

    Kernels are 5x5 with padding 2, channels C -> w -> w (stride 2) -> 2w -> 2w (stride 2) -> 2w; then one kernel as
    large as what is left (7x7 for 28x28, 7x5 for 28x20) maps to ``features`` numbers, and a linear layer to
    ``out_shape``. The paper has two linear layers, one for the mean and one for the variance: one layer with
    ``out_shape=(2 * latent,)`` is the same map.

    Args:
        in_shape: ``(H, W)`` or ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        features: Width of the last hidden layer; 256 in the paper. None leaves that layer out: in front of a
            `FlowPosterior`, whose features are gated, the linear layer with them is that layer.
        width: Channels w of the first layer; 32 in the paper.

    Raises:
        ValueError: If ``in_shape`` is not that of an image, or at call if the shape of x is wrong.

    Source: van den Berg et al. (UAI 2018), arXiv:1803.05649; the layers are those of the
    authors' code, riannevdberg/sylvester-flows.

    Example:
        >>> GatedConvEncoder((28, 28), (128,))(torch.rand(4, 28, 28)).shape
        torch.Size([4, 128])
    """

    def __init__(
        self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], *, features: int | None = 256, width: int = 32
    ) -> None:
        super().__init__(in_shape, out_shape)
        if len(self.in_shape) not in (2, 3):
            raise ValueError(
                f"GatedConvEncoder got in_shape={self.in_shape}: it must be (H, W) or (C, H, W). "
                "For data that are not images use MLP or GatedMLP."
            )
        *channels, height, w = self.in_shape
        left = (math.ceil(height / 4), math.ceil(w / 4))  # after the two stride-2 layers
        out = math.prod(self.out_shape)
        last: list[nn.Module] = [nn.Flatten(), nn.Linear(2 * width * math.prod(left), out)]
        if features is not None:
            last = [GatedConv2d(2 * width, features, left), nn.Flatten(), nn.Linear(features, out)]
        self.layers = nn.Sequential(
            GatedConv2d(math.prod(channels), width, 5, padding=2),
            GatedConv2d(width, width, 5, stride=2, padding=2),
            GatedConv2d(width, 2 * width, 5, padding=2),
            GatedConv2d(2 * width, 2 * width, 5, stride=2, padding=2),
            GatedConv2d(2 * width, 2 * width, 5, padding=2),
            *last,
        )

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` or ``(N, C, H, W)`` to ``(N, prod(out_shape))``."""
        return self.layers(x.unsqueeze(1) if x.dim() == 3 else x)
