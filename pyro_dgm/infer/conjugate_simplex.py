# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Beta and Dirichlet factors of a mean-field posterior, for probabilities."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dgm.infer.conjugate_factor import ContinuousFactor, Gradient, Node, irregular, misfit


def two_points(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Find two probabilities with given geometric means of themselves and of their complements.

    .. math:: p_1 p_2 = A^2, \qquad (1 - p_1)(1 - p_2) = B^2

    Args:
        first: A, positive, shape ``(*batch)``.
        second: B, positive; by Jensen A + B < 1 if they are exp E log p and exp E log(1 - p).

    Returns:
        p_1, 1 - p_1, p_2, 1 - p_2, each without cancellation.

    >>> two_points(torch.tensor(0.4), torch.tensor(0.4))
    (tensor(0.8000), tensor(0.2000), tensor(0.2000), tensor(0.8000))
    """
    a, b = first.square(), second.square()
    root = (((1 - first).square() - b).clamp_min(0) * ((1 + first).square() - b).clamp_min(0)).sqrt()
    high, other = (1 + a - b + root) / 2, (1 + b - a + root) / 2
    return high, b / other, a / high, other


class BetaFactor(ContinuousFactor):
    """Independent betas, T(s) = (log s, log(1 - s)): the gradient is (a - 1) / s - (b - 1) / (1 - s).

    Args:
        first: Parameters a at the start, of the site's shape.
        second: Parameters b at the start.
        event_dim: How many dimensions of the site's shape are the event.
    """

    first: Tensor
    second: Tensor

    def __init__(self, first: Tensor, second: Tensor, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.register_buffer("first", first.clone())
        self.register_buffer("second", second.expand_as(first).clone())

    def distribution(self) -> Any:
        """Give q(s)."""
        return dist.Beta(self.first, self.second).to_event(self.event_dim)

    def nodes(self) -> list[Node]:
        """Give two points with the means of log s and log(1 - s)."""
        high, _, low, _ = two_points(*_positive(self._log_means()))
        return [(high, 0.5), (low, 0.5)]

    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum; see the base."""
        left, right = torch.full_like(self.first, 0.3), torch.full_like(self.first, 0.7)
        low, high = gradient(left), gradient(right)
        determinant = (1 / 0.7) ** 2 - (1 / 0.3) ** 2
        first = (low * (-1 / 0.3) + high / 0.7) / determinant
        second = (high / 0.3 - low / 0.7) / determinant
        point = 0.5 + 0.15 * irregular(self.first)
        parts = first / point, -second / (1 - point)
        found = misfit(gradient(point), parts[0] + parts[1], *parts)
        self.first.copy_(first + 1)
        self.second.copy_(second + 1)
        return found

    def proper(self) -> bool:
        """Tell whether the parameters are those of a distribution, whose nodes are numbers."""
        positive = super().proper() and all(bool((buffer > 0).all()) for buffer in self.buffers())
        return positive and all(bool((means > _floor(means)).all()) for means in self._log_means())

    def _log_means(self) -> list[Tensor]:
        """E log s and E log(1 - s)."""
        total = (self.first + self.second).digamma()
        return [part.digamma() - total for part in (self.first, self.second)]

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return dist.Beta(self.first, self.second).entropy().sum()


class DirichletFactor(ContinuousFactor):
    """Dirichlets over K probabilities, T(s) = log s: along the simplex the gradient is (a_k - 1) / s_k + c, any c.

    Args:
        concentration: Parameters a at the start, of the site's shape ``(*batch, K)``.
        event_dim: How many dimensions of the site's shape are the event, at least 1.
    """

    concentration: Tensor

    def __init__(self, concentration: Tensor, event_dim: int) -> None:
        super().__init__()
        self.event_dim = event_dim
        self.register_buffer("concentration", concentration.clone())

    def distribution(self) -> Any:
        """Give q(s)."""
        return dist.Dirichlet(self.concentration).to_event(self.event_dim - 1)

    def nodes(self) -> list[Node]:
        """Give two points with the means of log s: a half of the probabilities is scaled up, then the other half."""
        (geometric,) = _positive([self._log_mean()])
        half = geometric.shape[-1] // 2
        if half == 0:
            return [(torch.ones_like(geometric), 1.0)]
        parts = geometric[..., :half], geometric[..., half:]
        masses = [part.sum(-1, keepdim=True) for part in parts]
        high, complement, low, other = two_points(*masses)
        points = [
            torch.cat([parts[0] * (first / masses[0]), parts[1] * (second / masses[1])], -1)
            for first, second in ((high, complement), (low, other))
        ]
        return [(point / point.sum(-1, keepdim=True), 0.5) for point in points]  # the sum is 1 but for rounding

    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum; see the base."""
        size = self.concentration.shape[-1]
        if size == 1:
            return self.concentration.new_zeros(())
        ramp = torch.arange(1.0, size + 1).to(self.concentration)
        rising = (ramp / ramp.sum()).expand_as(self.concentration)
        falling = rising.flip(-1)
        up, down = rising * gradient(rising), falling * gradient(falling)  # a - 1 + c s
        columns = torch.stack([rising, -falling], -1)
        offsets = torch.linalg.lstsq(columns, (up - down).unsqueeze(-1)).solution.squeeze(-1)
        natural = (up - offsets[..., :1] * rising + down - offsets[..., 1:] * falling) / 2
        point = 1 + 0.5 * irregular(self.concentration)
        point = point / point.sum(-1, keepdim=True)
        scaled = point * gradient(point)
        offset = ((scaled - natural) * point).sum(-1, keepdim=True) / point.square().sum(-1, keepdim=True)
        found = misfit(scaled, natural + offset * point, natural, offset * point)
        self.concentration.copy_(natural + 1)
        return found

    def proper(self) -> bool:
        """Tell whether the parameters are those of a distribution, whose nodes are numbers."""
        positive = super().proper() and bool((self.concentration > 0).all())
        return positive and bool((self._log_mean() > _floor(self.concentration)).all())

    def _log_mean(self) -> Tensor:
        """E log s."""
        return self.concentration.digamma() - self.concentration.sum(-1, keepdim=True).digamma()

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return dist.Dirichlet(self.concentration).entropy().sum()


def _floor(like: Tensor) -> float:
    """Log of the least number whose square is not zero."""
    return 0.45 * math.log(torch.finfo(like.dtype).tiny)


def _positive(log_means: list[Tensor]) -> list[Tensor]:
    """Exponentiate, to numbers whose squares are not zero."""
    return [part.clamp_min(_floor(part)).exp() for part in log_means]
