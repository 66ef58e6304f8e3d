# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What is believed about normal distributions: a normal-Wishart distribution over their means and precisions."""

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dgm.distributions.wishart import Wishart

_BLOCK = 2**21  # numbers in the largest array of a step: 16 MB in double precision


@dataclass(frozen=True)
class NormalWishart:
    r"""K independent beliefs about a mean and a precision matrix, each conjugate to a normal likelihood.

    .. math:: p(\mu, \Lambda) = N(\mu \mid m, (\beta \Lambda)^{-1})\, \mathrm{Wishart}(\Lambda \mid \nu, S^{-1})

    Attributes:
        loc: m, shape ``(K, D)``.
        mean_precision: beta > 0, shape ``(K,)``: how many data the belief about the mean is worth.
        dof: nu > D - 1, shape ``(K,)``.
        scatter_tril: Lower Cholesky factor of S, shape ``(K, D, D)``.

    Source: Bishop (2006), sections 2.3.6 and 10.2, with S the inverse of his W.
    """

    loc: Tensor
    mean_precision: Tensor
    dof: Tensor
    scatter_tril: Tensor

    def precisions(self) -> Any:
        """p(Lambda), of batch shape ``(K,)``."""
        return Wishart(self.dof, self.scatter_tril)

    def locs(self, precisions: Tensor) -> Any:
        """p(mu | Lambda) for matrices ``(*sample, K, D, D)``: a normal of batch shape ``(*sample, K)``."""
        return dist.MultivariateNormal(self.loc, precision_matrix=self.mean_precision[..., None, None] * precisions)

    def expected_log_prob(self, x: Tensor) -> Tensor:
        r""":math:`E \log N(x \mid \mu_k, \Lambda_k^{-1})` for data ``(B, D)``, shape ``(B, K)`` (Bishop, eq. 10.64)."""
        dim = self.loc.shape[-1]
        log_det = self.precisions().expected_log_det()
        distance = self.dof * self._distance(x) + dim / self.mean_precision
        return (log_det - dim * math.log(2 * math.pi) - distance) / 2

    def predictive_log_prob(self, x: Tensor) -> Tensor:
        """Log-density of a new datum, a Student t distribution: ``(B, D)`` to ``(B, K)`` (Bishop, eq. 10.81)."""
        dim = self.loc.shape[-1]
        free = self.dof + 1 - dim
        shrink = self.mean_precision / (1 + self.mean_precision)  # precision: free * shrink * S^-1
        half_log_det = dim / 2 * shrink.log() - self.scatter_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_gammas = ((free + dim) / 2).lgamma() - (free / 2).lgamma() - dim / 2 * math.log(math.pi)
        return log_gammas + half_log_det - (free + dim) / 2 * torch.log1p(shrink * self._distance(x))

    def _distance(self, x: Tensor) -> Tensor:
        """(x - m)^T S^-1 (x - m) for each pair, shape ``(B, K)``; a block of data at a time."""
        eye = torch.eye(self.loc.shape[-1], dtype=x.dtype, device=x.device).expand_as(self.scatter_tril)
        whiten = torch.linalg.solve_triangular(self.scatter_tril, eye, upper=False).mT  # (K, D, D)
        blocks = (((part - self.loc.unsqueeze(1)) @ whiten).square().sum(-1).mT for part in x.split(_rows(self.loc)))
        if torch.is_grad_enabled():
            return torch.cat(list(blocks))
        found = x.new_empty(len(x), len(self.loc))  # in place, for small pieces between the blocks break up the memory
        for rows, block in zip(found.split(_rows(self.loc)), blocks, strict=True):
            rows.copy_(block)
        return found

    def kl(self, prior: "NormalWishart") -> Tensor:
        """KL divergence to another normal-Wishart in nats, shape ``(K,)``."""
        ratio = prior.mean_precision / self.mean_precision
        shift = (self.loc - prior.loc).unsqueeze(-1)
        distance = torch.linalg.solve_triangular(self.scatter_tril, shift, upper=False).square().sum((-2, -1))
        of_means = self.loc.shape[-1] * (ratio - 1 - ratio.log()) + prior.mean_precision * self.dof * distance
        return of_means / 2 + self.precisions().kl(prior.precisions())

    def updated(self, counts: Tensor, center: Tensor, shifts: Tensor, scatters: Tensor) -> "NormalWishart":
        r"""Add data: what is believed after them (Bishop 2006, eq. 10.60 to 10.63).

        Args:
            counts: Number of data of each component, fractions too, shape ``(K,)``.
            center: Points that the data are counted from, shape ``(K, D)``; close to their means for precision.
            shifts: Sums of (x - center), shape ``(K, D)``.
            scatters: Sums of (x - center) (x - center)^T, shape ``(K, D, D)``.

        Returns:
            The posterior.
        """
        mean_shift = shifts / counts.clamp_min(torch.finfo(counts.dtype).tiny).unsqueeze(-1)  # 0 without data
        mean_precision = self.mean_precision + counts
        away = center + mean_shift - self.loc
        weight = (self.mean_precision * counts / mean_precision)[:, None, None]
        scatter = scatters - _outer(mean_shift, shifts) + weight * _outer(away, away)
        return NormalWishart(
            self.loc + (counts / mean_precision).unsqueeze(-1) * away,
            mean_precision,
            self.dof + counts,
            _cholesky(self.scatter_tril @ self.scatter_tril.mT + scatter),
        )

    def towards(self, other: "NormalWishart", rate: int | float) -> "NormalWishart":
        """Average natural parameters, (1 - rate) of these and rate of the other's: a natural gradient step."""
        mine, its = (1 - rate) * self.mean_precision, rate * other.mean_precision
        total = mine + its
        away = other.loc - self.loc
        tril, its_tril = self.scatter_tril, other.scatter_tril
        scatter = (1 - rate) * (tril @ tril.mT) + rate * (its_tril @ its_tril.mT)
        return NormalWishart(
            self.loc + (its / total).unsqueeze(-1) * away,
            total,
            (1 - rate) * self.dof + rate * other.dof,
            _cholesky(scatter + (mine * its / total)[:, None, None] * _outer(away, away)),
        )


def weighted_moments(x: Tensor, weights: Tensor, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum what `NormalWishart.updated` needs to know about data that components share, a block of data at a time.

    Args:
        x: Data, shape ``(B, D)``.
        weights: How much of each datum is each component's, shape ``(B, K)``.
        center: Points that the data are counted from, shape ``(K, D)``.

    Returns:
        Counts ``(K,)``, sums of (x - center) ``(K, D)``, and of (x - center) (x - center)^T ``(K, D, D)``, in float64.

    >>> weighted_moments(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0]]))
    (tensor([1.5000], dtype=torch.float64), tensor([[1.]], dtype=torch.float64), tensor([[[2.]]], dtype=torch.float64))
    """
    many, dim = center.shape
    found = [x.new_zeros(*shape, dtype=torch.float64) for shape in ((many,), (many, dim), (many, dim, dim))]
    for part, share in zip(x.split(_rows(center)), weights.split(_rows(center)), strict=True):
        away = part - center.unsqueeze(1)  # (K, block, D)
        weighted = share.mT.unsqueeze(-1) * away
        for total, block in zip(found, (share.sum(0), weighted.sum(1), weighted.mT @ away), strict=True):
            total += block
    return found[0], found[1], found[2]


def _rows(center: Tensor) -> int:
    """Give how many data fit into a block, if each takes a number for every component and dimension."""
    return max(_BLOCK // center.numel(), 1)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def _cholesky(matrix: Tensor) -> Tensor:
    return torch.linalg.cholesky((matrix + matrix.mT) / 2)
