# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A factor of a mean-field posterior: the distribution of one site, with its expectations as sums over few points."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

Gradient = Callable[[Tensor], Tensor]
Node = tuple[Tensor, Tensor | int | float]


class Factor(nn.Module, ABC):
    r"""q(s) of a site s, in the family of its prior, with sufficient statistics T(s).

    In a conditionally conjugate model the log joint is linear in T(s) if all else is given. So points s_i with weights
    w_i are as good as the distribution itself, if :math:`\sum_i w_i T(s_i) = E_q T(s)`: those are the nodes.
    """

    @abstractmethod
    def distribution(self) -> Any:
        """Give q(s), of the site's batch and event shape."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Give points of the site's whole shape, each with a weight: a number, or one for each element of the batch."""

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return self.distribution().entropy().sum()

    def proper(self) -> bool:
        """Tell whether the parameters are those of a distribution, whose nodes are numbers."""
        return all(bool(buffer.isfinite().all()) for buffer in self.buffers())


class ContinuousFactor(Factor):
    """A factor whose natural parameters are read off the gradient of the expected log joint at a few points."""

    @abstractmethod
    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum.

        Args:
            gradient: Maps points of the site's shape to the gradient of the expected log joint there, of that shape.

        Returns:
            How far a further point's gradient is from what the parameters predict, 0-dim and relative: rounding, if
            the site is conjugate and its elements do not depend on each other.
        """


class EnumeratedFactor(Factor):
    """A Categorical or Bernoulli factor: its nodes are its values.

    Args:
        prior: The site's distribution.
        generator: Draws the start, which breaks the symmetry between the values.
    """

    support: Tensor
    log_probs: Tensor

    def __init__(self, prior: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.binary = type(prior).__name__ == "Bernoulli"
        values = prior.enumerate_support(expand=False)
        self.register_buffer("support", values.reshape(-1))
        shape = (len(self.support), *prior.batch_shape)
        like: Tensor = stripped(prior).logits
        start = 2 * torch.randn(shape, generator=generator, dtype=torch.float64).to(like)
        self.register_buffer("log_probs", start.log_softmax(0))

    def distribution(self) -> Any:
        """Give q(s)."""
        if self.binary:
            return dist.Bernoulli(logits=self.log_probs[1] - self.log_probs[0])
        return dist.Categorical(logits=self.log_probs.movedim(0, -1))

    def nodes(self) -> list[Node]:
        """Give each value, for all of the batch at once, with its probabilities."""
        shape = self.log_probs.shape[1:]
        return [(value.expand(shape), row.exp()) for value, row in zip(self.support, self.log_probs, strict=True)]

    def fit(self, table: Tensor) -> None:
        """Become the optimum.

        Args:
            table: Expected log joint of each value, shape ``(values, *batch)``.
        """
        self.log_probs.copy_(table.log_softmax(0).clamp_min(torch.finfo(table.dtype).min / 4))  # finite: it is saved

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return torch.special.entr(self.log_probs.exp()).sum()

    def proper(self) -> bool:
        """Tell whether some value is possible everywhere."""
        return not bool(self.log_probs.isnan().any())


def irregular(like: Tensor) -> Tensor:
    """Give numbers in [-1, 1] that have no pattern, of a tensor's shape: a point to check a formula at."""
    index = torch.arange(1, like.numel() + 1, dtype=torch.float64)
    return torch.sin(index.square() * 12.9898 + index).reshape(like.shape).to(like)


def misfit(found: Tensor, predicted: Tensor, *others: Tensor) -> Tensor:
    """Give the largest difference relative to the numbers that it comes from, 0-dim."""
    size = found.abs() + sum(other.abs() for other in others)
    return ((found - predicted).abs() / (size + 1e-6 * size.max()).clamp_min(torch.finfo(size.dtype).tiny)).max()


def stripped(fn: Any) -> Any:
    """Take off what only reshapes a distribution: `to_event`, `expand`, `mask`."""
    while type(fn).__name__ in {"Independent", "ExpandedDistribution", "MaskedDistribution"}:
        fn = fn.base_dist
    return fn
