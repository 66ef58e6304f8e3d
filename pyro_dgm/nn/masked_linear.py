# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A linear layer in which some outputs do not see some inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskedLinear(nn.Linear):
    r"""Map x to :math:`(W \odot M)\, x + b`, where M keeps what goes from a degree to the same or a higher one.

    Args:
        in_degrees: Degree of every input.
        out_degrees: Degree of every output.

    Source: Germain et al. (ICML 2015), arXiv:1502.03509, section 4.1.

    Example:
        >>> MaskedLinear([1, 2], [0, 1, 2]).mask
        tensor([[0., 0.], [1., 0.], [1., 1.]])
    """

    mask: Tensor

    def __init__(self, in_degrees: Sequence[int], out_degrees: Sequence[int]) -> None:
        super().__init__(len(in_degrees), len(out_degrees))
        mask = torch.tensor(out_degrees).unsqueeze(1) >= torch.tensor(in_degrees)
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Map ``(*batch, in_features)`` to ``(*batch, out_features)``, with another bias or weight if one is given.

        A bias of shape ``(*batch, out_features)`` is one for each datum.
        """
        bias = self.bias if bias is None else bias
        weight = (self.weight if weight is None else weight) * self.mask
        return functional.linear(x, weight, bias) if bias.dim() == 1 else functional.linear(x, weight) + bias
