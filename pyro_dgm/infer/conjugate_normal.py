# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Normal factors of a mean-field posterior: of single numbers, and of whole vectors."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_dgm.infer.conjugate_factor import ContinuousFactor, Gradient, Node, irregular, misfit


class NormalFactor(ContinuousFactor):
    """Independent normals, T(s) = (s, s^2): the gradient is a line.

    Args:
        loc: Means at the start, of the site's shape.
        scale: Standard deviations at the start.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc.clone())
        self.register_buffer("scale", scale.expand_as(loc).clone())

    def distribution(self) -> Any:
        """Give q(s)."""
        return dist.Normal(self.loc, self.scale)

    def nodes(self) -> list[Node]:
        """Give mean - scale and mean + scale, which have the mean and the variance."""
        return [(self.loc - self.scale, 0.5), (self.loc + self.scale, 0.5)]

    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum; see the base."""
        low, high = gradient(self.loc - self.scale), gradient(self.loc + self.scale)
        middle, slope = (low + high) / 2, (high - low) / (2 * self.scale)
        step = self.scale * (1.5 + irregular(self.loc))
        found = misfit(gradient(self.loc + step), middle + slope * step, low, high)
        self.loc.sub_(middle / slope)
        self.scale.copy_((-slope) ** -0.5)
        return found


class VectorFactor(ContinuousFactor):
    """Normal vectors with full covariances: the gradient is affine; the event's dimensions become one of size D.

    Args:
        loc: Means at the start, of the site's shape.
        tril: Cholesky factors of the covariances at the start, shape ``(*batch, D, D)``.
        event_dim: How many dimensions of the site's shape are the event.
    """

    loc: Tensor
    tril: Tensor

    def __init__(self, loc: Tensor, tril: Tensor, event_dim: int) -> None:
        super().__init__()
        self.batch, self.event = loc.shape[: loc.dim() - event_dim], loc.shape[loc.dim() - event_dim :]
        flat = loc.reshape(*self.batch, -1)
        self.register_buffer("loc", flat.clone())
        self.register_buffer("tril", tril.expand(*flat.shape, flat.shape[-1]).clone())

    def distribution(self) -> Any:
        """Give q(s)."""
        normal = dist.MultivariateNormal(self.loc, scale_tril=self.tril)
        if len(self.event) == 1:
            return normal
        reshape = dist.transforms.ReshapeTransform(normal.event_shape, self.event)
        return dist.TransformedDistribution(normal, reshape)

    def nodes(self) -> list[Node]:
        """Give mean +- sqrt(D) times each column of the Cholesky factor, which have the mean and the covariance."""
        size = self.loc.shape[-1]
        columns = [size**0.5 * self.tril[..., index] for index in range(size)]
        points = [self.loc + sign * column for column in columns for sign in (-1, 1)]
        return [(point.reshape(*self.batch, *self.event), 1 / (2 * size)) for point in points]

    def entropy(self) -> Tensor:
        """Sum the entropies of the batch, in nats, 0-dim."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.tril).entropy().sum()

    def fit(self, gradient: Gradient) -> Tensor:
        """Become the optimum; see the base."""

        def slope_at(point: Tensor) -> Tensor:
            return gradient(point.reshape(*self.batch, *self.event)).reshape_as(self.loc)

        base = slope_at(self.loc)
        columns = [slope_at(self.loc + self.tril[..., index]) - base for index in range(self.loc.shape[-1])]
        changes = -torch.stack(columns, -1)  # precision times tril
        precision = torch.linalg.solve_triangular(self.tril, changes, upper=False, left=False)
        precision = (precision + precision.mT) / 2
        weight = irregular(self.loc) + 0.5
        predicted = base - (changes @ weight.unsqueeze(-1)).squeeze(-1)
        sizes = (base, *columns)
        found = misfit(slope_at(self.loc + (self.tril @ weight.unsqueeze(-1)).squeeze(-1)), predicted, *sizes)
        factor, failed = torch.linalg.cholesky_ex(precision)
        if bool(failed.any()):
            self.tril.fill_(torch.nan)  # the caller says what that means
            return found
        self.loc.add_(torch.cholesky_solve(base.unsqueeze(-1), factor).squeeze(-1))
        self.tril.copy_(torch.linalg.cholesky(torch.cholesky_inverse(factor)))
        return found
