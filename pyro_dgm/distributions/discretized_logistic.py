# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A logistic density on a line cut into L bins: a distribution over the ordered levels of a pixel."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_dgm.distributions.level_distribution import LevelDistribution


def discretized_logistic(
    level: Float[Tensor, "*#batch"], loc: Float[Tensor, "*#batch"], log_scale: Float[Tensor, "*#batch"], levels: int
) -> Float[Tensor, "*#batch"]:
    r"""Return the log-probability of a level: log of the difference of two logistic CDFs, without ever subtracting.

    .. math:: \log[\sigma(a) - \sigma(b)] = \log\sigma(a) + \log\sigma(-b) + \log(1 - e^{-(a - b)})

    where a and b are the standardised upper and lower edge of the bin, and :math:`a - b = 2 / (s (L - 1))` is the
    same for every level. The lowest bin reaches to :math:`-\infty`, so its probability is :math:`\sigma(a)`; the
    highest one to :math:`+\infty`, with :math:`\sigma(-b)`. Hence the levels sum to one for any L.

    Args:
        level: Integers 0..L-1 held in floats of the dtype of ``loc``.
        loc: Centre on the grid where level 0 is -1 and level L-1 is 1.
        log_scale: Logarithm of the scale s, in the units of ``loc``.
        levels: Number L of levels.

    Returns:
        Log-probability in nats.
    """
    inverse_scale = torch.exp(-log_scale)
    half_width = inverse_scale / (levels - 1)
    middle = ((2 * level - (levels - 1)) / (levels - 1) - loc) * inverse_scale
    lowest, highest = level == 0, level == levels - 1
    below_upper_edge = torch.where(highest, 0.0, logsigmoid(middle + half_width))
    above_lower_edge = torch.where(lowest, 0.0, logsigmoid(half_width - middle))
    width = torch.where(lowest | highest, 0.0, _log_width(log_scale, levels))
    return below_upper_edge + above_lower_edge + width


def _log_width(log_scale: torch.Tensor, levels: int) -> torch.Tensor:
    """Return log(1 - exp(-w)) for the width w of a bin in scales, by its series where w is too small for expm1."""
    log_w = math.log(2 / (levels - 1)) - log_scale
    small = log_w < math.log(1e-3)
    series = torch.where(small, log_w, 0.0).exp() * small  # each branch of the second `where` gets only its own w
    large = torch.where(small, 0.0, log_w).exp()
    return torch.where(small, log_w - series / 2 + series.square() / 24, torch.log(-torch.expm1(-large)))


def draw_levels(loc: Float[Tensor, "*batch"], log_scale: Float[Tensor, "*batch"], levels: int) -> torch.Tensor:
    """Draw one int64 level for every element: a logistic draw, rounded to the grid and clipped to it."""
    eps = torch.finfo(loc.dtype).eps
    logistic = torch.logit(torch.rand_like(loc).clamp(eps, 1 - eps))
    position = loc + log_scale.exp() * logistic  # on [-1, 1]
    return ((position + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1).long()


class DiscretizedLogistic(LevelDistribution):
    """Logistic distribution over the levels 0..L-1, which lie evenly on [-1, 1].

    Differs from the source, and from the usual code, in being exact: bins are 1 / (L - 1) wide to either side for any
    number of levels, the tail goes to the outermost levels only, the log-probability needs no fallback for small
    values, and samples are levels. In float32 ``log_scale`` may be anything in about -75..75.

    Args:
        loc: Centre on [-1, 1] (or beyond), shape ``(*batch)``. Level k lies at 2 k / (L - 1) - 1.
        log_scale: Logarithm of the scale, in the same units; it broadcasts with ``loc``.
        levels: Number L of levels, at least 2.
        validate_args: Whether to check parameters and values; Pyro's global setting if None.

    Raises:
        ValueError: If ``levels`` is not an integer of at least 2, or (with validation on) a parameter is NaN or a
            value is not a level.

    Source: Salimans et al. (ICLR 2017), arXiv:1701.05517, section 2.1.

    Example:
        >>> p = DiscretizedLogistic(torch.tensor(0.0), torch.tensor(-1.0), levels=17)
        >>> p.log_prob(p.enumerate_support()).logsumexp(0).abs() < 1e-6
        tensor(True)
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}

    def __init__(
        self, loc: Tensor | float, log_scale: Tensor | float, *, levels: int, validate_args: bool | None = None
    ) -> None:
        self.loc, self.log_scale = broadcast_all(loc, log_scale)
        super().__init__(levels, self.loc.shape, validate_args=validate_args)

    def log_prob_of(self, level: Tensor) -> Tensor:
        """Return log p(level) in nats."""
        return discretized_logistic(level, self.loc, self.log_scale, self.levels)

    def at_least(self, level: Tensor) -> Tensor:
        """Return P(X >= level) for levels 1..L-1: the logistic tail above the lower edge of the level's bin."""
        edge = (2 * level - self.levels) / (self.levels - 1)
        return torch.sigmoid((self.loc - edge) * torch.exp(-self.log_scale))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw int64 levels of shape ``(*sample_shape, *batch)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            return draw_levels(self.loc.expand(shape), self.log_scale.expand(shape), self.levels)
