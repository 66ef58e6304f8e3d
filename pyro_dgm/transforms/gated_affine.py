# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The gated affine map of one number: a mean of the number and of a new one, as in an LSTM."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pyro_dgm.transforms.elementwise import Elementwise


@dataclass(frozen=True)
class GatedAffine(Elementwise):
    r"""Replace a part of every element.

    .. math:: y = g\, x + (1 - g)\, m, \qquad g = \sigma(a), \qquad a = f + b \tanh(r / b), \qquad
              \log dy/dx = \log \sigma(a)

    The raw numbers are r and m. Zeros give :math:`y = \sigma(f)\, x`, not the identity: a positive f makes the first
    steps of training keep most of x. The paper has a = r, with f the initial bias; here a is bounded smoothly, so that
    no gate closes for good and the inverse is finite.

    Args:
        forget_bias: What f is: 1 or 2 in the paper.
        bound: How far a may be from f.

    Raises:
        ValueError: If the bound is not positive.

    Source: Kingma et al. (NeurIPS 2016), arXiv:1606.04934, section 4, eqs. 13-14.

    Example:
        >>> y, logdet = GatedAffine(forget_bias=0.0).forward_and_logdet(torch.tensor([2.0]), torch.tensor([[0.0, 1.0]]))
        >>> y, logdet
        (tensor([1.5000]), tensor([-0.6931]))
    """

    forget_bias: int | float = 1.0
    bound: int | float = 10.0
    size = 2

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"GatedAffine got bound={self.bound}: the bound of a gate's logit must be positive.")

    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every x to g x + (1 - g) m, with log g."""
        logit, mean = self._parameters(raw)
        return torch.lerp(mean, x, logit.sigmoid()), functional.logsigmoid(logit)

    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every y to y + (y - m) exp(-a), which is (y - (1 - g) m) / g, with -log g."""
        logit, mean = self._parameters(raw)
        return torch.addcmul(y, y - mean, (-logit).exp()), functional.softplus(-logit)

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        logit, mean = raw.unbind(-1)
        return self.forget_bias + self.bound * torch.tanh(logit / self.bound), mean
