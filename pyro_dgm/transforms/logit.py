# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The logit of pixels: values between black and white become numbers without bounds, which flows are made for."""

import math

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size


class Logit(FlowTransform):
    r"""Map dequantised data v, in units of levels from 0 to L, to real numbers.

    .. math:: y_i = \log \frac{a_i}{1 - a_i}, \quad a_i = \alpha + (1 - 2 \alpha) \frac{v_i}{L}, \qquad
              \log|\det J| = \sum_i \log \frac{1 - 2 \alpha}{L\, a_i (1 - a_i)}

    It stands inverted behind a flow, ``Compose([flow, Invert(Logit(shape, levels=256))])``, whose density is then that
    of v itself. The margin :math:`\alpha` keeps the logits of black and white finite; what the flow puts beyond them
    comes out a little below 0 or above L, in the open interval that is the transform's domain.

    1 - a is computed from L - v, so that both ends are exact. A v outside the domain has no logit: it gets y = 0
    and log|det J| of minus infinity, that is, density 0. Backwards, a is kept within one rounding error of 0 and 1 (in
    float32, y beyond 16), so that what comes out is inside the domain.

    Args:
        shape: Shape of one datum, or the number of its elements.
        levels: Number L of levels, 256 for bytes.
        alpha: The margin, above 0 and below 1/2. With the 0.05 of the paper, the edges of black and white, which smooth
            densities do not have, lie in the middle of the noise; the smaller it is, the farther out in the tails.

    Raises:
        ValueError: If a size is not positive, levels is no integer of at least 2, or alpha is not between 0 and 1/2.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 4.1, with the margin at both ends.

    Example:
        >>> flow = Logit(3, levels=256)
        >>> y = flow(torch.tensor([0.0, 128.0, 256.0]))
        >>> [round(value, 4) for value in y.tolist()], flow.inv(y).round(decimals=3)
        ([-9.2102, 0.0, 9.2102], tensor([  0., 128., 256.]))
    """

    exact_inverse = False  # beyond the margin, and 16 logits in float32, many inputs have one output

    def __init__(self, shape: Size, *, levels: int, alpha: int | float = 1e-4) -> None:
        super().__init__(shape)
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(f"Logit got levels={levels}: data need an integer number of at least 2, bytes have 256.")
        if not 0 < alpha < 0.5:
            raise ValueError(
                f"Logit got alpha={alpha}: the margin must be above 0, where the logit of black would be infinite, and "
                f"below 0.5, where nothing would be left between the margins. Values from 1e-6 to 0.05 are usual."
            )
        self.levels, self.alpha = levels, alpha
        beyond = levels * alpha / (1 - 2 * alpha)
        inside = constraints.interval(-beyond, levels + beyond)
        self.domain = constraints.independent(inside, len(self.shape))

    def bind(self, context: Tensor | None) -> Parameters:
        """Give nothing: there are no parameters."""
        return ()

    def __repr__(self) -> str:
        shape = self.shape[0] if len(self.shape) == 1 else self.shape
        return f"Logit({shape}, levels={self.levels}, alpha={self.alpha})"

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        slope, event = (1 - 2 * self.alpha) / self.levels, list(range(-len(self.shape), 0))
        low, high = self.alpha + slope * x, self.alpha + slope * (self.levels - x)
        inside = (low > 0) & (high > 0)
        log_low, log_high = (torch.where(inside, end, 0.5).log() for end in (low, high))
        logdet = math.prod(self.shape) * math.log(slope) - (log_low + log_high).sum(event)
        return log_low - log_high, torch.where(inside.flatten(-len(event)).all(-1), logdet, -torch.inf)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        slope, event = (1 - 2 * self.alpha) / self.levels, list(range(-len(self.shape), 0))
        nearest = torch.finfo(y.dtype).eps
        low = torch.sigmoid(y).clamp(nearest, 1 - nearest)
        logdet = (logsigmoid(y) + logsigmoid(-y)).sum(event) - math.prod(self.shape) * math.log(slope)
        return (low - self.alpha) / slope, logdet
