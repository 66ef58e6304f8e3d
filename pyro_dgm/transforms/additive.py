# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The shift of one number, which changes no volume."""

from dataclasses import dataclass

from torch import Tensor

from pyro_dgm.transforms.elementwise import Elementwise


@dataclass(frozen=True)
class ElementwiseShift(Elementwise):
    r"""Add a number to every element.

    .. math:: y = x + t, \qquad \log dy/dx = 0

    The raw number is t; zero gives the identity.

    Source: Dinh et al. (ICLR workshop 2015), arXiv:1410.8516, section 3.2.

    Example:
        >>> ElementwiseShift().forward_and_logdet(torch.tensor([2.0]), torch.tensor([[1.0]]))
        (tensor([3.]), tensor([0.]))
    """

    size = 1

    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every x to x + t, with zeros."""
        return x + raw.squeeze(-1), x.new_zeros(()).expand(x.shape)

    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every y to y - t, with zeros."""
        return y - raw.squeeze(-1), y.new_zeros(()).expand(y.shape)
