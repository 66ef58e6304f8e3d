# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Covariance matrices of normal components: one for each, or one for all."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.models.covariance import LOG_2PI, Covariance


def cholesky_factor(raw: Tensor) -> Tensor:
    """Turn any square matrices into lower triangles with a positive diagonal: its log is theirs."""
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def factored(covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Invert `cholesky_factor` and the square, and tell which matrices are singular."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    singular = (info != 0) | ~(pivots.square() > floor).all(-1)
    return factor.tril(-1) + torch.diag_embed(pivots.log()), singular


def quadratic(loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give precision matrices, precision times mean ``(K, D)``, what is added ``(K,)``, and how rounding can grow."""
    factor = cholesky_factor(raw)
    precision = torch.cholesky_inverse(factor)
    weighted = (precision @ loc[..., None])[..., 0]
    half_log_det = raw.diagonal(dim1=-2, dim2=-1).sum(-1)
    constant = -0.5 * (loc * weighted).sum(-1) - half_log_det - 0.5 * loc.shape[-1] * LOG_2PI
    size = loc.abs() + factor.square().sum(-1).sqrt()  # (K, D)
    growth = ((precision.abs() @ size[..., None])[..., 0] * size).sum(-1).max()
    return precision, weighted, constant, growth


class _Full(Covariance):
    """A covariance matrix for each component."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.components, self.dim, self.dim)

    @property
    def width(self) -> int:
        return self.dim + self.dim * (self.dim + 1) // 2

    def covariance(self, raw: Tensor) -> Tensor:
        factor = cholesky_factor(raw)
        return factor @ factor.mT

    def raw(self, covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        return factored(covariance, floor)

    def distribution(self, loc: Tensor, raw: Tensor, z: Tensor) -> Distribution:
        return dist.MultivariateNormal(loc[z], scale_tril=cholesky_factor(raw)[z])

    def features(self, y: Tensor) -> Tensor:
        made = y.new_empty((self.width, y.shape[1]))
        made[: self.dim] = y
        start = self.dim
        for i in range(self.dim):  # the upper triangle of y y^T, row by row
            torch.mul(y[i:], y[i], out=made[start : start + self.dim - i])
            start += self.dim - i
        return made

    def coefficients(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precision, weighted, constant, growth = quadratic(loc, raw)
        rows, columns = torch.triu_indices(self.dim, self.dim, device=loc.device)
        halves = torch.where(rows == columns, -0.5, -1.0).to(loc)
        return torch.cat([weighted, precision[:, rows, columns] * halves], 1), constant, growth

    def second(self, sums: Tensor, shared: Tensor | float) -> Tensor:
        rows, columns = torch.triu_indices(self.dim, self.dim, device=sums.device)
        second = sums.new_empty(self.shape)
        second[:, rows, columns] = second[:, columns, rows] = sums[:, self.dim :]
        return second

    def whitener(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factor, unit = cholesky_factor(raw), torch.eye(self.dim).to(raw)
        scale = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        return scale, scale @ loc[..., None], raw.diagonal(dim1=-2, dim2=-1).sum(-1)

    def squared_distance(self, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        white = torch.addmm(-shift.flatten()[:, None], scale.flatten(0, 1), y)  # (K D, B): one large product
        return white.unflatten(0, (self.components, self.dim)).square().sum(1)

    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b.mT

    def per_component(self, values: Tensor) -> Tensor:
        return values[:, None, None]

    def of_all(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self.shape)

    def diagonal(self, values: Tensor) -> Tensor:
        return values.diagonal(dim1=-2, dim2=-1)

    @property
    def squares(self) -> int:
        return 1

    @property
    def minors(self) -> int:
        return self.dim

    def prior_terms(self, raw: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        precision = torch.cholesky_inverse(cholesky_factor(raw))
        return 2 * raw.diagonal(dim1=-2, dim2=-1).sum(), (precision.diagonal(dim1=-2, dim2=-1) * scale).sum()

    def prior_log_scale(self, scale: Tensor) -> Tensor:
        return self.components * scale.log().sum()


class _Tied(_Full):
    """One covariance matrix for all components."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dim, self.dim)

    @property
    def width(self) -> int:
        return self.dim

    def distribution(self, loc: Tensor, raw: Tensor, z: Tensor) -> Distribution:
        return dist.MultivariateNormal(loc[z], scale_tril=cholesky_factor(raw))

    def features(self, y: Tensor) -> Tensor:
        return y

    def coefficients(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return quadratic(loc, raw)[1:]

    def common(self, y: Tensor, raw: Tensor) -> Tensor:
        factor = cholesky_factor(raw)
        return -0.5 * torch.linalg.solve_triangular(factor, y, upper=False).square().sum(0)

    def squared_distance(self, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return (scale @ y - shift).square().sum(1)

    def shared_second(self, y: Tensor) -> Tensor:
        return y @ y.mT

    def second(self, sums: Tensor, shared: Tensor | float) -> Tensor:
        return torch.as_tensor(shared)

    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        return a.transpose(0, 1).flatten(1) @ b.transpose(0, 1).flatten(1).mT

    def per_component(self, values: Tensor) -> Tensor:
        return values.sum()

    def prior_log_scale(self, scale: Tensor) -> Tensor:
        return scale.log().sum()


MATRICES: dict[str, type[Covariance]] = {"full": _Full, "tied": _Tied}
