# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Numbers around zero become units of levels, evenly: what stands behind a flow of images without a logit."""

import math

from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size


class Spread(FlowTransform):
    r"""Map y to v, in units of levels: from -1/2 ... 1/2 to 0 ... L, and what is beyond it beyond.

    .. math:: v = L \, (y + 1/2), \qquad \log|\det J| = D \log L

    Args:
        shape: Shape of one datum, or the number of its elements.
        levels: Number L of levels.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> Spread(3, 256)(torch.tensor([-0.5, 0.0, 0.5]))
        tensor([  0., 128., 256.])
    """

    def __init__(self, shape: Size, levels: int) -> None:
        super().__init__(shape)
        self.levels = levels
        self.volume = math.prod(self.shape) * math.log(levels)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give nothing: there are no parameters."""
        return ()

    def __repr__(self) -> str:
        return f"Spread({self.shape}, {self.levels})"

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.dim() - len(self.shape)]
        return self.levels * x + self.levels / 2, x.new_full(batch, self.volume)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        batch = y.shape[: y.dim() - len(self.shape)]
        return (y - self.levels / 2) / self.levels, y.new_full(batch, -self.volume)
