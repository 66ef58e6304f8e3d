# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Densities and moments of all components of a mixture of normals, the fast way where it is accurate enough."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_dgm.models.covariance import LOG_2PI, Covariance

# By how much the terms of a quadratic form may grow rounding before the plain way is taken: a bound on the error of a
# log-density in nats, and of a covariance relative to itself; means over data are some hundred times more accurate.
DENSITY_ERROR = {torch.float32: 1e-3, torch.float64: 1e-8}
MOMENT_ERROR = {torch.float32: 1e-2, torch.float64: 1e-4}


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Give the precision that sums over data of a dtype are made in: that dtype, or float32 for half precisions.

    >>> working_dtype(torch.bfloat16), working_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


class NormalDensities:
    """Normals at their present parameters, prepared in float64 and then used in the data's dtype.

    Unless ``plain``, making one waits for the device, and its densities may be off by `DENSITY_ERROR`: 1e-3 nats in
    float32, 1e-8 in float64. Half precisions are worked on in float32 there.

    Args:
        kind: The kind of covariance.
        loc: Means about the centre, float64, shape ``(K, D)``.
        raw: The kind's raw parameter, float64.
        dtype: Of the data.
        plain: Whether to take the plain way to the densities (see `Covariance`), without a look at how accurate the
            natural one is, for which the host waits for the device.
    """

    def __init__(self, kind: Covariance, loc: Tensor, raw: Tensor, *, dtype: torch.dtype, plain: bool = False) -> None:
        self.kind, self.dtype = kind, dtype if plain else working_dtype(dtype)
        dtype = self.dtype
        self.exact_loc, self.loc, self.raw = loc, loc.to(dtype), raw.to(dtype)
        self.natural = self.natural_moments = False
        if not plain:
            weights, constant, growth = kind.coefficients(loc, raw)
            error = float(growth.detach()) * torch.finfo(dtype).eps
            self.natural, self.natural_moments = error <= DENSITY_ERROR[dtype], error <= MOMENT_ERROR[dtype]
            self.weights, self.constant = weights.to(dtype), constant.to(dtype)
        if not self.natural:
            scale, shift, half_log_det = kind.whitener(loc, raw)
            self.scale, self.shift = scale.to(dtype), shift.to(dtype)
            self.log_norm = (-0.5 * kind.dim * LOG_2PI - half_log_det).to(dtype)[..., None]

    def blocks(self, x: Tensor, center: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through data in blocks that fit into the processor's cache, or a GPU's memory.

        Args:
            x: Data, shape ``(B, D)``.
            center: What ``loc`` is about, shape ``(D,)``.

        Yields:
            Each block about the centre, as columns, shape ``(D, b)``, and its features (nothing where they are of no
            use), shape ``(F, b)``.
        """
        width = self.kind.width if self.natural else self.kind.components * self.kind.dim
        budget = (2**22 if x.device.type == "cpu" else 2**29) // self.loc.element_size()  # 4 MiB, or 512
        for block in x.split(max(64, 2 ** int(math.log2(max(budget // width, 1))))):
            y = (block.to(self.dtype) - center.to(self.dtype)).mT.contiguous()
            yield y, self.kind.features(y) if self.natural or self.natural_moments else y[:0]

    def log_densities(self, y: Tensor, features: Tensor) -> Tensor:
        """Give all log-densities but for what is `common` to all components: shape ``(K, B)``."""
        if self.natural:
            return torch.addmm(self.constant[:, None], self.weights, features)
        return self.log_norm - 0.5 * self.kind.squared_distance(y, self.scale, self.shift)

    def common(self, y: Tensor) -> Tensor | float:
        """Give what is common to all components, ``(B,)``."""
        return self.kind.common(y, self.raw) if self.natural else 0.0

    def sums(self, y: Tensor, features: Tensor, shares: Tensor) -> dict[str, Tensor]:
        """Sum what the moments are made of, weighted by shares ``(K, B)``, in float64."""
        if self.natural_moments:
            found = {"features": shares @ features.mT, "shared": torch.as_tensor(self.kind.shared_second(y)).to(y)}
        else:
            gaps = y - self.loc[..., None]
            weighted = gaps * shares[:, None]
            found = {"gaps": weighted.sum(-1), "outer": self.kind.outer(weighted, gaps)}
        return {"mass": shares.sum(1).double(), **{name: value.double() for name, value in found.items()}}

    def moments(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn sums into ``mass``, ``(K,)``, and weighted sums of y and of its squares, ``first`` and ``second``."""
        mass = sums["mass"]
        if self.natural_moments:
            features = sums["features"]
            first, second = features[:, : self.kind.dim], self.kind.second(features, sums["shared"])
        else:
            first = sums["gaps"] + self.exact_loc * mass[:, None]
            second = self.kind.moved(sums["outer"], sums["gaps"], mass, self.exact_loc)
        return {"mass": mass, "first": first, "second": second}
