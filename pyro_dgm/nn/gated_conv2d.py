# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A convolution whose every output is multiplied by a learned gate between 0 and 1."""

from torch import Tensor, nn
from torch.nn import functional


class GatedConv2d(nn.Module):
    r"""Map an image x to :math:`h(x) \odot \sigma(g(x))`, where h and g are convolutions.

    Both maps are one convolution with twice the channels.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the result.
        kernel_size: Height and width of the kernel.
        stride: Step of the kernel.
        padding: Zeros added on every side.

    Source: van den Berg et al. (UAI 2018), arXiv:1803.05649; the layers are those of the
    authors' code, riannevdberg/sylvester-flows.

    Example:
        >>> GatedConv2d(1, 32, 5, stride=2, padding=2)(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 32, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.value_and_gate = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        return functional.glu(self.value_and_gate(x), dim=1)
