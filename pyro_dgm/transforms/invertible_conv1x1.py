# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mix the channels of an image by one invertible matrix, the same at every pixel."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size
from pyro_dgm.transforms.flow_parameters import ContextNet
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.qr_linear import QRLinear

Decomposition = Literal["lu", "qr"]


class InvertibleConv1x1(FlowTransform):
    r"""Multiply the channels of every pixel by a matrix that is invertible whatever its parameters.

    .. math:: y_{:, i, j} = W x_{:, i, j}, \qquad \log|\det J| = H W \log|\det W|

    W is multiplied out once in a pass, however large the batch, and so is its inverse, by solving the triangular
    systems of `LULinear` or `QRLinear` for the identity. It starts as a random rotation (``"lu"``: which may also
    mirror). With a context, each image has its own W, which starts nearly alike for all.

    The inverse is as exact as the triangles are well-conditioned: errors of rounding grow by the product of their
    condition numbers. Around the start that is a few digits of the last place whatever C is: 1e-14 in double, 5e-6 in
    single precision at C = 48. Where entries off the diagonals are of order 1 it grows exponentially with C: at C = 48
    W then has a condition number of up to 1e16 for ``"lu"`` and 1e9 for ``"qr"``, of which only R can be
    ill-conditioned. Products have the full precision of their numbers: no convolution in TF32 takes part.

    Args:
        shape: Shape ``(C, H, W)`` of an image.
        decomposition: How W is kept: ``"lu"``, a permutation and two triangles; or ``"qr"``, reflections and one.
        context_dim: Size of a context, which is a vector; None for one learned W.
        context_net: Makes the network from ``context_dim`` and the number of parameters: C squared for ``"lu"``.

    Raises:
        ValueError: If a size is not positive, the shape is not that of an image, or the decomposition is unknown.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 3.2, eq. 10, for ``"lu"``; Hoogeboom, van den
    Berg & Welling (ICML 2019), arXiv:1901.11137, section 3.3, for ``"qr"``.

    Example:
        >>> flow = InvertibleConv1x1((3, 8, 8))
        >>> y, logdet = flow.forward_and_logdet(torch.randn(5, 3, 8, 8))
        >>> y.shape, logdet.shape
        (torch.Size([5, 3, 8, 8]), torch.Size([5]))
        >>> torch.allclose(logdet, torch.zeros(5), atol=1e-4)
        True
    """

    def __init__(
        self,
        shape: Size,
        *,
        decomposition: Decomposition = "lu",
        context_dim: int | None = None,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(shape, context_dim=context_dim)
        if len(self.shape) != 3:
            raise ValueError(
                f"InvertibleConv1x1 got shape={self.shape}: it mixes the channels of images (C, H, W). For vectors, "
                f"take LULinear({self.shape[0]}, start='rotation')."
            )
        if decomposition not in get_args(Decomposition):
            raise ValueError(
                f"InvertibleConv1x1 got decomposition={decomposition!r}: it must be one of "
                f"{', '.join(get_args(Decomposition))}."
            )
        kind = LULinear if decomposition == "lu" else QRLinear
        self.linear: FlowTransform = kind(
            self.shape[0], context_dim=context_dim, start="rotation", bias=False, context_net=context_net
        )

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the factors of W from a context; with None, from the flow's own parameters."""
        return self.linear.bind(context)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        columns, logdet = self.linear._forward_and_logdet(self._identity(x, parameters), parameters)
        return self._mix(x, columns, logdet)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        columns, logdet = self.linear._inverse_and_logdet(self._identity(y, parameters), parameters)
        return self._mix(y, columns, logdet)

    def _identity(self, x: Tensor, parameters: Parameters) -> Tensor:
        """Give the unit vectors, shape ``(C, *batch, C)`` for factors of shape ``(*batch, C, C)``."""
        channels, batch = self.shape[0], parameters[1].shape[:-2]
        unit = torch.eye(channels, dtype=x.dtype, device=x.device)
        return unit.reshape(channels, *(1 for _ in batch), channels).expand(channels, *batch, channels)

    def _mix(self, x: Tensor, columns: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply by the matrix, of which the columns are ``(C, *batch, C)``; log|det| has shape ``(C, *batch)``."""
        batch, (channels, height, width) = x.shape[:-3], self.shape
        matrix = columns.movedim(0, -1)
        if 8 * height * width < channels and matrix.dim() == 2:  # so few pixels that all images go into one product
            y = (x.flatten(-2).mT @ matrix.mT).mT
        else:
            y = matrix.expand(*batch, channels, channels) @ x.flatten(-2)
        return y.unflatten(-1, (height, width)), (logdet[0] * (height * width)).expand(batch)
