# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mean of sigmoids, seen through a logit: an increasing map of one number that can open several modes."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.solve import attach_gradients, solve_increasing

MIN_SLOPE = 1e-3
"""Smallest slope of a unit: where |y| is 1e3, |x| is 1e6 at most."""


@dataclass(frozen=True)
class Sigmoidal(Elementwise):
    r"""Map the real line onto itself by one layer of the deep sigmoidal flow.

    .. math::
        y = \sigma^{-1}\Big(\sum_k w_k\, \sigma(a_k x + b_k)\Big), \qquad a_k > 0, \quad w_k > 0, \quad \sum_k w_k = 1

    All is computed from log-sigmoids of both signs, so that value and log-derivative keep their precision, eps
    (1 + ``|y|``), where every unit is saturated. y lies between the smallest and the largest of :math:`a_k x + b_k`:
    far out the map has the slope of its flattest unit, every y has an x, and that x is bracketed by the units' own.
    The inverse is a safeguarded Newton iteration: ``|y(x) - y|`` is below 4 eps (1 + ``|y|``), or x exact to 4 eps
    (1 + ``|x|``). Its gradients are those of the implicit function theorem.

    The raw numbers become slopes by a softplus, biases, and logits of the weights. Raw zeros give slopes of 1, equal
    weights, and biases spread evenly over [-1, 1], without which all units would learn the same: then :math:`|y - x|`
    is below 0.44 for two units, 0.21 for eight, and 0 for one.

    Args:
        units: Number K of sigmoids.

    Raises:
        ValueError: If units is not positive. `ConvergenceError` if y is not finite.

    Source: Huang et al. (ICML 2018), arXiv:1804.00779, section 3.1; log space as in its appendix. There slopes have no
    lower limit, and biases no spread.

    Example:
        >>> map = Sigmoidal(units=4)
        >>> x, raw = torch.linspace(-1000, 1000, 5), torch.randn(5, map.size)
        >>> y, logdet = map.forward_and_logdet(x, raw)
        >>> torch.allclose(map.inverse_and_logdet(y, raw)[0], x, atol=1e-4)
        True
    """

    units: int = 8
    size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ValueError(f"Sigmoidal got units={self.units}: it needs one sigmoid at least.")
        object.__setattr__(self, "size", 3 * self.units)

    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every x, with the log of its derivative."""
        return _mean_of_sigmoids(x, *self._parameters(raw))

    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every y back, with the log of the derivative of the inverse."""
        slope, bias, log_weight = self._parameters(raw)
        tolerance = 4 * torch.finfo(y.dtype).eps * (1 + y.detach().abs())

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = _mean_of_sigmoids(x, slope, bias, log_weight)
            return value, log_slope.exp()

        def to_rounding(x: Tensor) -> tuple[Tensor, Tensor]:
            value, derivative = function(x)
            return torch.where((value - y).abs() <= tolerance, y, value), derivative

        with torch.no_grad():
            of_units = (y.unsqueeze(-1) - bias) / slope
            lower, upper = of_units.amin(-1), of_units.amax(-1)
            lower, upper = lower - 1e-3 * (1 + lower.abs()), upper + 1e-3 * (1 + upper.abs())  # beyond rounding
            root = solve_increasing(to_rounding, y, start=(lower + upper) / 2, lower=lower, upper=upper)
        x = attach_gradients(function, root, y) if torch.is_grad_enabled() else root
        return x, -_mean_of_sigmoids(x, slope, bias, log_weight)[1]

    def _parameters(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read slopes a, biases b and unnormalised log w, each of shape ``(*batch, units)``."""
        slope, bias, weight = raw.split(self.units, -1)
        spread = torch.linspace(-1, 1, self.units, dtype=raw.dtype, device=raw.device) if self.units > 1 else 0
        slope = MIN_SLOPE + (1 - MIN_SLOPE) * softplus(slope + math.log(math.expm1(1)))
        return slope, bias + spread, weight


def _mean_of_sigmoids(x: Tensor, slope: Tensor, bias: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the logit of the mean p, and its log-derivative, that of the units' mean a p (1 - p) over p (1 - p).

    The logit is that of all multiples of the weights; the derivative wants their sum, which is that of p and 1 - p.
    """
    z = torch.addcmul(bias, x.unsqueeze(-1), slope)  # (*batch, units)
    log_q = -softplus(z, threshold=40)  # log sigmoid(-z), to the last bit of float64
    weighted_q = log_weight + log_q
    weighted_p = weighted_q + z
    all_p, all_q = weighted_p.logsumexp(-1), weighted_q.logsumexp(-1)
    log_slope = (weighted_p + (log_q + slope.log())).logsumexp(-1) + torch.logaddexp(all_p, all_q) - (all_p + all_q)
    return all_p - all_q, log_slope
