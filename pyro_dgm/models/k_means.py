# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""K-means: a mixture of normals of one fixed size, which at size zero gives each datum to its nearest centre."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.models.check_vectors import check_vectors
from pyro_dgm.models.mixture import Mixture, shares
from pyro_dgm.models.normal_densities import NormalDensities
from pyro_dgm.models.start_centers import start_centers
from pyro_dgm.models.variances import VARIANCES
from pyro_dgm.nn.full_precision import full_precision


class KMeans(Mixture):
    r"""Equal weights and one variance, which is not learned; only the centres are.

    .. math:: p(x) = \frac1K \sum_k N(x \mid \mu_k, v I), \qquad
              \lim_{v \to 0} v \log p(x) = -\tfrac12 \min_k |x - \mu_k|^2

    At ``variance=0`` EM is Lloyd's algorithm: a datum belongs wholly to its nearest centre (of equally near ones, the
    first), and a centre moves to the mean of its data; one without data stays where it is. There is no density then,
    and the objective is the limit above, half the negative inertia, in place of nats.

    Args:
        dim: D, the dimension of x.
        components: K.
        variance: v, at least 0.

    Attributes:
        loc: Centres, shape ``(K, D)``.
        center: About where data lie, shape ``(D,)``, for accuracy only.

    Raises:
        ValueError: If a size is not positive or the variance negative; if a density is asked for at variance 0.

    Source: Lloyd (IEEE Trans. Inf. Theory 1982); Bishop, Pattern Recognition and Machine Learning (2006), section
    9.3.2.

    >>> from pyro_dgm.infer import em
    >>> x = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    >>> model = KMeans(dim=1, components=2, variance=0)
    >>> em(model, x).objectives[-1] * -2 * 4  # the inertia: 0.5 + 2
    2.5
    """

    def __init__(self, *, dim: int, components: int, variance: int | float = 1.0) -> None:
        super().__init__(components=components, learned_weights=False)
        if dim < 1 or not 0 <= variance < float("inf"):
            raise ValueError(f"KMeans got dim={dim}, variance={variance}: dim must be positive, variance at least 0.")
        self.dim, self.variance = dim, variance
        self.kind = VARIANCES["spherical"](dim, components)
        self.loc = nn.Parameter(torch.randn(components, dim))
        self.register_buffer("center", torch.zeros(dim))

    def check(self, x: Tensor) -> None:
        """Refuse x if it is not of shape ``(B, dim)`` and of the centres' dtype."""
        check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)

    def _need_density(self) -> None:
        if self.variance == 0:
            raise ValueError(
                "KMeans(variance=0) has no density, so it cannot score, dream or guide: use variance > 0, or nearest() "
                "and inertia()."
            )

    def _densities(self, dtype: torch.dtype, *, plain: bool = False) -> NormalDensities:
        loc = self.loc.double() - self.center.double()
        raw = loc.new_full((self.components,), 0.5 * math.log(self.variance or 1.0))
        return NormalDensities(self.kind, loc, raw, dtype=dtype, plain=plain)

    def component(self, z: Tensor) -> Distribution:
        """Give N(mu_z, v I) for component numbers z of any shape."""
        self._need_density()
        return dist.Normal(self.loc[z], self.variance**0.5).to_event(1)

    @full_precision
    def log_joint(self, x: Tensor) -> Tensor:
        """Give log p(x, z = k) in nats, shape ``(B, K)``, of data ``(B, dim)``."""
        self.check(x)
        self._need_density()
        y = (x - self.center).mT
        return self._densities(x.dtype, plain=True).log_densities(y, y[:0]).mT + self.log_weights

    def responsibilities(self, x: Tensor) -> Tensor:
        """Give p(z = k | x), shape ``(B, K)``; at variance 0, one for the nearest centre and zeros."""
        if self.variance == 0:
            return nn.functional.one_hot(self.nearest(x), self.components).to(x)
        return super().responsibilities(x)

    @torch.no_grad()
    @full_precision
    def nearest(self, x: Tensor) -> Tensor:
        """Number the nearest centre of each datum, from data ``(B, dim)``: int64, shape ``(B,)``."""
        self.check(x)
        densities = self._densities(x.dtype)
        found = [densities.log_densities(*block).argmax(0) for block in densities.blocks(x, self.center)]
        return torch.cat([torch.empty(0, dtype=torch.int64, device=x.device), *found])

    @torch.no_grad()
    def inertia(self, x: Tensor) -> Tensor:
        """Sum the squared distances of data, ``(B, dim)``, to their nearest centres: 0-dim."""
        return (x - self.loc[self.nearest(x)]).square().sum()

    @torch.no_grad()
    @full_precision
    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """E-step: sum what the M-step needs, about `center`, all float64.

        The host waits for the device once, to see which formulas are accurate (see `NormalDensities`).

        Args:
            x: Data, shape ``(B, dim)``.

        Returns:
            ``count`` and ``log_likelihood`` (at variance 0: half the negative inertia), 0-dim; ``mass``, ``(K,)``, the
            sum of each centre's shares in the data; ``first``, ``(K, D)``, the sum of its data.
        """
        self.check(x)
        densities = self._densities(x.dtype)
        log_weights = self._log_weights(densities.dtype)[:, None]
        total: dict[str, Tensor] = {}
        for y, features in densities.blocks(x, self.center):
            log_joint = densities.log_densities(y, features) + log_weights  # (K, b)
            if self.variance == 0:
                nearest = log_joint.argmax(0)
                weight = torch.zeros_like(log_joint).scatter_(0, nearest[None], 1.0)
                log_p = -0.5 * (y - densities.loc.mT[:, nearest]).square().sum(0)
            else:
                weight, log_p = shares(log_joint, 0)
            found = densities.sums(y, features, weight)
            found["log_likelihood"] = log_p.sum(dtype=torch.float64)
            total = {name: total[name] + value for name, value in found.items()} if total else found
        moments = densities.moments(total)
        del moments["second"]
        count = moments["mass"].new_tensor(float(len(x)))
        return {"count": count, "log_likelihood": total["log_likelihood"], **moments}

    @torch.no_grad()
    def maximize(self, statistics: dict[str, Tensor]) -> None:
        """M-step: move each centre to the mean of its data; one without data stays.

        Args:
            statistics: What `statistics` gave.
        """
        mass = statistics["mass"][:, None]
        empty = mass <= 10 * torch.finfo(torch.float64).eps * statistics["count"]
        mean = statistics["first"] / mass.where(~empty, 1.0) + self.center
        self.loc.copy_(torch.where(empty, self.loc.double(), mean))

    @torch.no_grad()
    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Start from data far apart, by k-means++.

        Args:
            x: Data, shape ``(N, dim)``.
            seed: Seed of the choice.

        Raises:
            ValueError: If there are no data or some are not finite.
        """
        self.check(x)
        self.loc.copy_(start_centers(x, self.components, seed=seed))
        self.center.copy_(x.mean(0))
