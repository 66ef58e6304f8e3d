# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of modules that make integers continuous: each gives a distribution over the cell [x, x + 1) of a datum."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.distributions.check_levels import check_levels
from pyro_dgm.nn.shape import positive_shape


class Dequantizer(nn.Module, ABC):
    """Map integers x, shape ``(*batch, *shape)``, to a distribution of real v with floor(v) = x.

    To write one: call ``super().__init__(shape, levels)`` and implement :meth:`distribution`.

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)`` or ``(3, 32, 32)``.
        levels: Number L of levels: data are integers 0 ... L - 1.

    Raises:
        ValueError: If a size is not positive, there is none, or there are fewer than 2 levels.

    Attributes:
        like: An empty tensor in the dtype and on the device of the module.
    """

    like: Tensor

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.shape, self.levels = positive_shape(self, "shape", shape), levels
        if levels < 2 or not self.shape:
            raise ValueError(
                f"{type(self).__name__} got shape={self.shape} and levels={levels}: a datum needs at least one size, "
                f"and at least 2 levels. Bytes have 256."
            )
        self.register_buffer("like", torch.empty(0), persistent=False)

    @abstractmethod
    def distribution(self, low: Tensor) -> Distribution:
        """Give q(v | x) for the integers as floating point numbers, shape ``(*batch, *shape)``."""

    def forward(self, x: Tensor) -> Distribution:
        """Give the distribution of the dequantised data.

        Args:
            x: Integers of any dtype, or floating point numbers that hold integers, shape ``(*batch, *shape)``.

        Returns:
            A Pyro distribution with that ``batch_shape``, in the dtype of the module.

        Raises:
            ValueError: If the last sizes of x are not ``shape``, the dtype has too few digits for as many levels, or,
                with Pyro's validation on, x has a number that is no level.
        """
        if x.shape[max(x.dim() - len(self.shape), 0) :] != self.shape:
            raise ValueError(
                f"{type(self).__name__}(shape={self.shape}) got x of shape {tuple(x.shape)}: its last sizes must be "
                f"{self.shape}."
            )
        self._check_digits()
        check_levels(self, x, self.levels)
        return self.distribution(x.to(self.like.dtype))

    def _check_digits(self) -> None:
        """Refuse a dtype that has less than 8 bits left for the noise in the highest cell: it would be no noise."""
        most = int(1 / (128 * torch.finfo(self.like.dtype).eps))
        if self.levels > most:
            raise ValueError(
                f"{type(self).__name__} of dtype {self.like.dtype} got levels={self.levels}: there, noise between two "
                f"of more than {most} levels would have fewer than 8 bits. Use float32 up to 2**16 levels, beyond them "
                f"float64, e.g. model.float() or model.double()."
            )
