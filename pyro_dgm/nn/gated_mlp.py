# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A multi-layer perceptron whose hidden layers are gated instead of squashed."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_dgm.nn.gated_linear import GatedLinear
from pyro_dgm.nn.net import Net
from pyro_dgm.nn.shape import positive_shape


class GatedMLP(Net):
    """Map data of any shape through fully connected gated layers; the last layer is linear.

    Args:
        in_shape: Shape of one datum that comes in; it is flattened.
        out_shape: Shape of one datum that goes out.
        hidden: Widths of the hidden layers. The default is the VampPrior network.

    Raises:
        ValueError: If a width is not positive, or at call if the shape of x is wrong.

    Source: Tomczak & Welling (AISTATS 2018), arXiv:1705.07120; the widths are those of the authors' code,
    jmtomczak/vae_vampprior.

    Example:
        >>> GatedMLP((40,), (1, 28, 28))(torch.rand(5, 40)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], *, hidden: Sequence[int] = (300, 300)
    ) -> None:
        super().__init__(in_shape, out_shape)
        widths = (math.prod(self.in_shape), *positive_shape(self, "hidden", hidden))
        layers = [GatedLinear(n, m) for n, m in pairwise(widths)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(self.out_shape)))

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, *in_shape)`` to ``(N, prod(out_shape))``."""
        return self.layers(x.flatten(1))
