# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The same numbers in another shape, as between images with one channel and images without channels."""

import torch
from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size


class Reshape(FlowTransform):
    """Give an event another shape of as many elements; log|det J| = 0.

    Args:
        shape: Shape of x.
        out_shape: Shape of y.

    Raises:
        ValueError: If a size is not positive, or the numbers of elements differ.

    Example:
        >>> Reshape((1, 8, 8), (8, 8))(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 8, 8])
    """

    def __init__(self, shape: Size, out_shape: Size) -> None:
        super().__init__(shape, out_shape=out_shape)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give nothing: there are no parameters."""
        return ()

    def __repr__(self) -> str:
        return f"Reshape({self.shape}, {self.out_shape})"

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return _shaped(x, self.shape, self.out_shape)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return _shaped(y, self.out_shape, self.shape)


def _shaped(x: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    batch: torch.Size = x.shape[: x.dim() - len(old)]
    return x.reshape(*batch, *new), x.new_zeros(batch)
