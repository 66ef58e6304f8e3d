# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Variances of normal components without correlation: one for each dimension, or one for all dimensions."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.models.covariance import LOG_2PI, Covariance


class _Diagonal(Covariance):
    """A variance for each component and dimension."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.components, self.dim)

    @property
    def width(self) -> int:
        return 2 * self.dim

    def covariance(self, raw: Tensor) -> Tensor:
        return (2 * raw).exp()

    def raw(self, covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * covariance.log(), ~(covariance > floor).all(-1)

    def distribution(self, loc: Tensor, raw: Tensor, z: Tensor) -> Distribution:
        return dist.Normal(loc[z], raw.exp()[z]).to_event(1)

    def features(self, y: Tensor) -> Tensor:
        return torch.cat([y, y.square()])

    def coefficients(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precision = (-2 * raw).exp()
        weighted = loc * precision
        constant = -0.5 * (loc * weighted).sum(-1) - raw.sum(-1) - 0.5 * self.dim * LOG_2PI
        growth = (loc.abs() * (-raw).exp() + 1).square().sum(-1).max()
        return torch.cat([weighted, -0.5 * precision], 1), constant, growth

    def second(self, sums: Tensor, shared: Tensor | float) -> Tensor:
        return sums[:, self.dim :]

    def whitener(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (-raw).exp()[..., None], loc[..., None], raw.sum(-1)

    def squared_distance(self, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return ((y - shift) * scale).square().sum(1)

    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1)

    def per_component(self, values: Tensor) -> Tensor:
        return values[:, None]

    def of_all(self, matrix: Tensor) -> Tensor:
        return matrix.diagonal().expand(self.shape)

    def diagonal(self, values: Tensor) -> Tensor:
        return values

    @property
    def squares(self) -> int:
        return 1

    @property
    def minors(self) -> int:
        return 1

    def prior_terms(self, raw: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * raw.sum(), (scale * (-2 * raw).exp()).sum()

    def prior_log_scale(self, scale: Tensor) -> Tensor:
        return self.components * scale.log().sum()


class _Spherical(_Diagonal):
    """A variance for each component, the same in all dimensions."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.components,)

    @property
    def width(self) -> int:
        return self.dim + 1

    def raw(self, covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * covariance.log(), ~(covariance > floor.mean(-1))

    def distribution(self, loc: Tensor, raw: Tensor, z: Tensor) -> Distribution:
        return dist.Normal(loc[z], raw.exp()[z][..., None]).to_event(1)

    def features(self, y: Tensor) -> Tensor:
        return torch.cat([y, y.square().sum(0, keepdim=True)])

    def coefficients(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precision = (-2 * raw).exp()
        weighted = loc * precision[:, None]
        constant = -0.5 * (loc * weighted).sum(-1) - self.dim * (raw + 0.5 * LOG_2PI)
        growth = (loc.abs() * (-raw).exp()[:, None] + 1).square().sum(-1).max()
        return torch.cat([weighted, -0.5 * precision[:, None]], 1), constant, growth

    def second(self, sums: Tensor, shared: Tensor | float) -> Tensor:
        return sums[:, -1]

    def whitener(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (-raw).exp()[:, None, None], loc[..., None], self.dim * raw

    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((-1, -2))

    def per_component(self, values: Tensor) -> Tensor:
        return values

    def of_all(self, matrix: Tensor) -> Tensor:
        return matrix.diagonal().mean().expand(self.shape)

    def diagonal(self, values: Tensor) -> Tensor:
        return values[..., None]

    @property
    def squares(self) -> int:
        return self.dim

    def prior_terms(self, raw: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * raw.sum(), (scale.mean() * (-2 * raw).exp()).sum()

    def prior_log_scale(self, scale: Tensor) -> Tensor:
        return self.components * scale.mean().log()


VARIANCES: dict[str, type[Covariance]] = {"diagonal": _Diagonal, "spherical": _Spherical}
