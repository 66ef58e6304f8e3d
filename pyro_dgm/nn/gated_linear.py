# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A linear layer whose every output is multiplied by a learned gate between 0 and 1."""

from torch import Tensor, nn
from torch.nn import functional


class GatedLinear(nn.Module):
    r"""Map x to :math:`h(x) \odot \sigma(g(x))`, where h and g are linear.

    Both maps are one matrix product.

    Args:
        in_features: Size of the last dimension of x.
        out_features: Size of the last dimension of the result.

    Source: Dauphin et al. (ICML 2017), arXiv:1612.08083, section 2; as the hidden layer of a VAE: Tomczak & Welling
    (AISTATS 2018), arXiv:1705.07120.

    Example:
        >>> GatedLinear(3, 4)(torch.rand(2, 3)).shape
        torch.Size([2, 4])
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.value_and_gate = nn.Linear(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*batch, in_features)`` to ``(*batch, out_features)``."""
        return functional.glu(self.value_and_gate(x), dim=-1)
