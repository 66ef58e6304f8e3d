# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of logistic densities cut into L bins: many-humped distributions over the levels of a pixel."""

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_dgm.distributions.discretized_logistic import discretized_logistic, draw_levels
from pyro_dgm.distributions.level_distribution import LevelDistribution


class DiscretizedLogisticMixture(LevelDistribution):
    r"""Mixture of J discretised logistics over the levels 0..L-1, which lie evenly on [-1, 1].

    .. math:: p(k) = \sum_j \pi_j \, \mathrm{DiscretizedLogistic}(k; \mu_j, s_j)

    Every element of the batch has its own mixture and its own component. The source shares one component among the
    red, green and blue of a pixel and predicts green from red and blue from both; here the three are independent
    given their parameters.

    Args:
        logits: Logarithms of the weights up to a constant, shape ``(*batch, J)``.
        loc: Centres on [-1, 1] (or beyond), shape ``(*batch, J)``.
        log_scale: Logarithms of the scales, in the same units, shape ``(*batch, J)``. The three broadcast.
        levels: Number L of levels, at least 2.
        validate_args: Whether to check parameters and values; Pyro's global setting if None.

    Raises:
        ValueError: If the parameters have no last dimension, ``levels`` is not an integer of at least 2, or (with
            validation on) a parameter is NaN or a value is not a level.

    Source: Salimans et al. (ICLR 2017), arXiv:1701.05517, section 2.1, equations 1 and 2.

    Example:
        >>> p = DiscretizedLogisticMixture(torch.zeros(2), torch.tensor([-0.5, 0.5]), torch.tensor(-4.0), levels=256)
        >>> p.mean
        tensor(127.5000)
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }

    def __init__(
        self, logits: Tensor, loc: Tensor, log_scale: Tensor, *, levels: int, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.log_scale = broadcast_all(logits, loc, log_scale)
        if self.loc.dim() < 1:
            raise ValueError(
                "DiscretizedLogisticMixture got parameters of shape (): their last dimension must count the "
                "components. For a single component use DiscretizedLogistic."
            )
        super().__init__(levels, self.loc.shape[:-1], validate_args=validate_args)

    def log_prob_of(self, level: Tensor) -> Tensor:
        """Return log p(level) in nats."""
        log_probs = discretized_logistic(level.unsqueeze(-1), self.loc, self.log_scale, self.levels)  # (..., J)
        # Not `log_softmax`: the parameters of a decoder have J as an outer dimension in memory, which it would move
        # inwards, and sums of tensors that lie differently are slow. The largest is taken off first, as it does.
        weights = self.logits - self.logits.detach().amax(-1, keepdim=True)
        return (weights + log_probs).logsumexp(-1) - weights.logsumexp(-1)

    def at_least(self, level: Tensor) -> Tensor:
        """Return P(X >= level) for levels 1..L-1."""
        edge = (2 * level.unsqueeze(-1) - self.levels) / (self.levels - 1)
        tails = torch.sigmoid((self.loc - edge) * torch.exp(-self.log_scale))  # (..., J)
        return (self.logits.softmax(-1) * tails).sum(-1)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw int64 levels of shape ``(*sample_shape, *batch)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            weights = torch.distributions.Categorical(logits=self.logits, validate_args=False)
            component = weights.sample(torch.Size(sample_shape)).unsqueeze(-1)  # (..., 1)
            loc, log_scale = (
                parameter.expand(*shape, -1).gather(-1, component).squeeze(-1)
                for parameter in (self.loc, self.log_scale)
            )
            return draw_levels(loc, log_scale, self.levels)
