# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of every network: it maps data of one fixed shape to another, under any number of leading dimensions."""

import math
from abc import ABC, abstractmethod

from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape


class Net(nn.Module, ABC):
    """Map ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    The leading dimensions (none for a single datum, ``(B,)``, ``(K, B)`` with particles, also of size zero) are
    flattened to one before :meth:`body` and restored after it, so that a convolution sees ``(N, C, H, W)`` always.

    To write a net: call ``super().__init__(in_shape, out_shape)`` and implement :meth:`body`.

    Args:
        in_shape: Shape of one datum that comes in.
        out_shape: Shape of one datum that goes out.

    Raises:
        ValueError: If a shape holds anything but positive integers.
    """

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.in_shape = positive_shape(self, "in_shape", in_shape)
        self.out_shape = positive_shape(self, "out_shape", out_shape)

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, *in_shape)`` to ``N`` outputs of ``prod(out_shape)`` numbers each, in any layout that reshapes."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the net to every datum.

        Args:
            x: Floating point tensor of shape ``(*batch, *in_shape)``.

        Returns:
            Tensor of shape ``(*batch, *out_shape)``.

        Raises:
            ValueError: If the last dimensions of x are not ``in_shape``, or x is not floating point.
        """
        batch = x.shape[: max(x.dim() - len(self.in_shape), 0)]
        if x.shape != batch + self.in_shape:
            raise ValueError(
                f"{type(self).__name__}(in_shape={self.in_shape}) got x of shape {tuple(x.shape)}: its last "
                f"{len(self.in_shape)} sizes must be {self.in_shape}. Reshape x, or build the net for this in_shape."
            )
        if not x.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} got x of dtype {x.dtype}: it must be floating point. "
                "Scale integer data first, e.g. x / (levels - 1)."
            )
        y = self.body(x.reshape(math.prod(batch), *self.in_shape))
        return y.reshape(*batch, *self.out_shape)
