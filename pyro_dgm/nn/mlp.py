# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A multi-layer perceptron: linear layers with a nonlinearity between them."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from pyro_dgm.nn.net import Net
from pyro_dgm.nn.shape import positive_shape

Start = Literal["torch", "glorot"]


class MLP(Net):
    r"""Map data of any shape through fully connected layers; the last one is linear.

    Args:
        in_shape: Shape of one datum that comes in; it is flattened.
        out_shape: Shape of one datum that goes out.
        hidden: Widths of the hidden layers. ``()`` makes an affine map. The default is the IWAE network
            (Burda et al. 2016, section 5), which also uses ``activation=nn.Tanh``.
        activation: Nonlinearity after every hidden layer.
        start: How weights begin: ``"torch"``, the default of `nn.Linear`, or ``"glorot"``, uniform within
            :math:`\sqrt{6 / (n_{in} + n_{out})}` with biases of 0 (Glorot & Bengio 2010), as the IWAE network has it.

    Raises:
        ValueError: If a width is not positive, ``start`` is unknown, or at call if the shape of x is wrong.

    Example:
        >>> MLP((28, 28), (100,))(torch.rand(5, 2, 28, 28)).shape
        torch.Size([5, 2, 100])
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        hidden: Sequence[int] = (200, 200),
        activation: type[nn.Module] = nn.ReLU,
        start: Start = "torch",
    ) -> None:
        super().__init__(in_shape, out_shape)
        if start not in get_args(Start):
            raise ValueError(f"MLP got start={start!r}: it must be one of {', '.join(get_args(Start))}.")
        widths = (math.prod(self.in_shape), *positive_shape(self, "hidden", hidden))
        layers = [layer for n, m in pairwise(widths) for layer in (nn.Linear(n, m), activation())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(self.out_shape)))
        if start == "glorot":
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)

    def body(self, x: Tensor) -> Tensor:
        """Map ``(N, *in_shape)`` to ``(N, prod(out_shape))``."""
        return self.layers(x.flatten(1))
