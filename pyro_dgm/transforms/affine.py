# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The increasing affine map of one number: a scale and a shift."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_dgm.transforms.elementwise import Elementwise


@dataclass(frozen=True)
class ElementwiseAffine(Elementwise):
    r"""Scale and shift every element.

    .. math:: y = x\, e^{s} + t, \qquad s = b \tanh(r / b), \qquad \log dy/dx = s

    The raw numbers are r and t; zeros give the identity. The log-scale is bounded smoothly, so that the slope lies in
    :math:`(e^{-b}, e^{b})` both ways, and the gradient is that of the function computed. For :math:`|r| \ll b` it is
    that of the papers, s = r.

    Args:
        bound: The bound b of the log-scale: 3 lets an element shrink or grow by a factor of 20.

    Raises:
        ValueError: If the bound is not positive.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.2; Papamakarios et al. (NeurIPS 2017),
    arXiv:1705.07057, eqs. 3-4.

    Example:
        >>> y, logdet = ElementwiseAffine().forward_and_logdet(torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]))
        >>> y, logdet
        (tensor([3.]), tensor([0.]))
    """

    bound: int | float = 3.0
    size = 2

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"ElementwiseAffine got bound={self.bound}: the bound of log-scales must be positive.")

    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every x to x exp(s) + t, with s."""
        log_scale, shift = self._parameters(raw, self.bound)
        return torch.addcmul(shift, x, log_scale.exp()), log_scale

    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every y to (y - t) exp(-s), with -s."""
        logdet, shift = self._parameters(raw, -self.bound)
        return (y - shift) * logdet.exp(), logdet

    def _parameters(self, raw: Tensor, bound: int | float) -> tuple[Tensor, Tensor]:
        """Give s (-s for a negative bound) and t."""
        log_scale, shift = raw.unbind(-1)
        return torch.tanh(log_scale / abs(bound)) * bound, shift
