# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A transposed (upsampling) convolution whose every output is multiplied by a learned gate between 0 and 1."""

from torch import Tensor, nn
from torch.nn import functional


class GatedConvTranspose2d(nn.Module):
    r"""Map an image x to :math:`h(x) \odot \sigma(g(x))`, where h and g are transposed convolutions.

    Both maps are one transposed convolution with twice the channels. Torch scales the initial weights of a transposed
    convolution by its *output* channels; they are drawn anew here, so that h and g start as two separate ones would.

    Args:
        in_channels: Channels of x.
        out_channels: Channels of the result.
        kernel_size: Height and width of the kernel.
        stride: Factor of upsampling.
        padding: Rows and columns cut from every side of the result.
        output_padding: Rows and columns added at the bottom and right, to tell apart the sizes that a strided
            convolution maps to the same one.

    Source: van den Berg et al. (UAI 2018), arXiv:1803.05649; the layers are those of the
    authors' code, riannevdberg/sylvester-flows.

    Example:
        >>> GatedConvTranspose2d(64, 32, 5, stride=2, padding=2, output_padding=1)(torch.rand(4, 64, 7, 7)).shape
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
        output_padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.value_and_gate = nn.ConvTranspose2d(
            in_channels, 2 * out_channels, kernel_size, stride=stride, padding=padding, output_padding=output_padding
        )
        bound = (out_channels * self.value_and_gate.weight[0, 0].numel()) ** -0.5
        for parameter in self.value_and_gate.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H', W')``."""
        return functional.glu(self.value_and_gate(x), dim=1)
