# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of normals: each datum comes from one of K clouds, each with its own place, size and shape."""

from typing import Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.models.check_vectors import check_vectors
from pyro_dgm.models.covariance_matrices import MATRICES
from pyro_dgm.models.gaussian_mixture_prior import GaussianMixturePrior
from pyro_dgm.models.k_means import KMeans
from pyro_dgm.models.mixture import Mixture, shares
from pyro_dgm.models.normal_densities import NormalDensities, working_dtype
from pyro_dgm.models.variances import VARIANCES
from pyro_dgm.nn.full_precision import full_precision

KINDS = {**MATRICES, **VARIANCES}


class GaussianMixture(Mixture):
    r"""K normals, with EM in closed form.

    .. math:: p(x) = \sum_k \pi_k\, N(x \mid \mu_k, \Sigma_k)

    The M-step sets weights, means and covariances to those of the data, each counted by its share in the component.
    A component without data keeps its mean and its covariance (under a prior, the covariance becomes the prior's mode).

    The Pyro programs are the likelihood alone: only EM sees the prior. For SVI add ``-log_prior()`` to the loss.

    Args:
        dim: D, the dimension of x.
        components: K.
        covariance: ``"full"`` for a matrix for each component, ``"tied"`` for one for all, ``"diagonal"`` for a
            variance for each component and dimension, ``"spherical"`` for one for each component.
        ridge: Added to all variances in the M-step, as scikit-learn's ``reg_covar``; None for 1e-6, or 0 with a prior.
            At 0 the M-step is exact and the likelihood never falls, but a component that collapses is an error.
        prior: Makes EM seek the most probable parameters instead of the likeliest, so that none collapses.

    Attributes:
        loc: Means, shape ``(K, D)``.
        raw_covariance: What `covariances` is made of: logs of standard deviations; of matrices the Cholesky factor,
            with logs on its diagonal.
        center: About where data lie, shape ``(D,)``, for accuracy only.
        prior_scale: The prior's s_j, shape ``(D,)``.

    Raises:
        ValueError: If a size or a number is out of its range; at `maximize`, if a covariance is singular.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 9.2; Dempster, Laird & Rubin (1977).

    >>> from pyro_dgm.infer import em
    >>> x = torch.cat([torch.randn(100, 2), torch.randn(100, 2) + 9])
    >>> model = GaussianMixture(dim=2, components=2)
    >>> history = em(model, x)
    >>> model.loc.detach().sort(0).values.round().int()
    tensor([[0, 0],
            [9, 9]], dtype=torch.int32)
    """

    def __init__(
        self,
        *,
        dim: int,
        components: int,
        covariance: Literal["full", "tied", "diagonal", "spherical"] = "full",
        ridge: int | float | None = None,
        prior: GaussianMixturePrior | None = None,
    ) -> None:
        super().__init__(components=components)
        if dim < 1 or covariance not in KINDS or (ridge is not None and not 0 <= ridge < float("inf")):
            raise ValueError(
                f"GaussianMixture got dim={dim}, covariance={covariance!r}, ridge={ridge}: dim must be positive, "
                f"covariance one of {list(KINDS)}, ridge 0 or a small positive number."
            )
        self.dim, self.covariance, self.prior = dim, covariance, prior
        self.ridge = ridge if ridge is not None else 1e-6 if prior is None else 0.0
        self.kind = KINDS[covariance](dim, components)
        self.dof = 0.0 if prior is None else self._dof(prior)
        self.loc = nn.Parameter(torch.randn(components, dim))
        self.raw_covariance = nn.Parameter(torch.zeros(self.kind.shape))
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("prior_scale", torch.full((dim,), float((prior and prior.scale) or 1.0)))

    def _dof(self, prior: GaussianMixturePrior) -> float:
        dof = self.kind.minors + 2 if prior.dof is None else prior.dof
        if not dof > self.kind.minors - 1:
            raise ValueError(
                f"GaussianMixture(dim={self.dim}, covariance={self.covariance!r}) got {prior}: dof must be above "
                f"{self.kind.minors - 1}."
            )
        return float(dof)

    @property
    def inexact(self) -> str | None:
        """Why the M-step is not the exact maximum, or None if it is."""
        if self.ridge == 0:
            return None
        return f"the M-step adds ridge={self.ridge} to all variances, after which they are not the likeliest (ridge=0)"

    @property
    def covariances(self) -> Tensor:
        """The covariances or variances, shaped as scikit-learn's: (K, D, D), (D, D), (K, D) or (K,)."""
        return self.kind.covariance(self.raw_covariance)

    def check(self, x: Tensor) -> None:
        """Refuse x if it is not of shape ``(B, dim)`` and of the parameters' dtype; NaN is not looked for."""
        check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)

    def component(self, z: Tensor) -> Distribution:
        """Give N(mu_z, Sigma_z) for component numbers z of any shape."""
        return self.kind.distribution(self.loc, self.raw_covariance, z)

    def _densities(self, dtype: torch.dtype, *, plain: bool = False) -> NormalDensities:
        loc = self.loc.double() - self.center.double()
        return NormalDensities(self.kind, loc, self.raw_covariance.double(), dtype=dtype, plain=plain)

    @full_precision
    def log_joint(self, x: Tensor) -> Tensor:
        """Give log p(x, z = k) in nats of data ``(B, dim)``: shape ``(B, K)``.

        Without gradients it takes the fast formula (see `Covariance`) where that is accurate to 1e-3 nats in float32,
        1e-8 in float64, else the program's; the host waits for the device once, to see which.
        """
        self.check(x)
        if torch.is_grad_enabled():  # gradients need all at once, and no waiting for the device
            densities, y = self._densities(x.dtype, plain=True), (x - self.center).mT
            blocks = iter([(y, y[:0])])
        else:
            densities = self._densities(x.dtype)
            blocks = densities.blocks(x, self.center)
        found = [(densities.log_densities(y, features) + densities.common(y)).mT for y, features in blocks]
        return torch.cat([x.new_empty(0, self.components), *found]).to(x) + self.log_weights

    @torch.no_grad()
    @full_precision
    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """E-step: sum what the M-step needs, about `center`, all float64.

        The host waits for the device once, to see which formulas are accurate (see `NormalDensities`).

        Args:
            x: Data, shape ``(B, dim)``; they are gone through in blocks, so memory does not grow with B.

        Returns:
            ``count`` and ``log_likelihood``, 0-dim; per component ``mass``, ``(K,)``, the sum of its shares in the
            data; ``first``, ``(K, D)``, and ``second``, of the covariances' shape (spherical: summed over dimensions),
            the sums of data and of their squares.
        """
        self.check(x)
        densities = self._densities(x.dtype)
        log_weights = self._log_weights(densities.dtype)[:, None]
        total: dict[str, Tensor] = {}
        for y, features in densities.blocks(x, self.center):
            log_joint = densities.log_densities(y, features) + log_weights  # (K, b)
            weight, log_p = shares(log_joint, 0)
            found = densities.sums(y, features, weight)
            found["log_likelihood"] = (log_p + densities.common(y)).sum(dtype=torch.float64)
            total = {name: total[name] + value for name, value in found.items()} if total else found
        moments = densities.moments(total)
        count = moments["mass"].new_tensor(float(len(x)))
        return {"count": count, "log_likelihood": total["log_likelihood"], **moments}

    @torch.no_grad()
    def maximize(self, statistics: dict[str, Tensor]) -> None:
        """M-step: set weights, means and covariances.

        Args:
            statistics: What `statistics` gave, summed over all data, or their average scaled to so many data.

        Raises:
            ValueError: If a covariance is singular; it names the component. The parameters are as they were, then.
        """
        kind, mass = self.kind, statistics["mass"]
        empty = mass <= 10 * torch.finfo(torch.float64).eps * statistics["count"]  # (K,)
        old = self.loc.double() - self.center.double()
        mean = torch.where(empty[:, None], old, statistics["first"] / mass.where(~empty, 1.0)[:, None])
        scatter = kind.scatter(statistics["first"], statistics["second"], mean)
        count = kind.squares * kind.per_component(mass.where(~empty, 1.0))
        raw, singular = self._raw(scatter, mass, kind.diagonal(statistics["second"] / count))
        stays = empty & (self.prior is None and self.covariance != "tied")
        if (singular & ~(stays if singular.dim() else stays.any())).any():
            self._refuse(singular & ~stays, mass)
        raw = torch.where(kind.per_component(stays).bool(), self.raw_covariance.double(), raw)
        self.set_weights(mass, concentration=1 if self.prior is None else self.prior.concentration)
        self.loc.copy_(mean + self.center)
        self.raw_covariance.copy_(raw)

    def _raw(self, scatter: Tensor, mass: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate (co)variances from sums of squares about the means: as raw parameters, and which are singular.

        ``squares`` are the mean squares about the centre, of which a variance is a difference: below 1e-10 of them it
        is rounding, and the M-step no maximum.
        """
        kind, count = self.kind, self.kind.squares * self.kind.per_component(mass)
        if self.prior is None:
            covariance = scatter / count.where(count > 0, 1.0)
        else:
            mode = kind.of_all(self.prior_scale.double().diag())
            covariance = (scatter + mode) / (count + self.dof + kind.minors + 1)
        covariance = covariance + self.ridge * kind.of_all(torch.eye(self.dim).to(scatter))
        exact = self.ridge == 0 and self.prior is None
        return kind.raw(covariance, squares * (1e-10 * exact))

    def _refuse(self, singular: Tensor, mass: Tensor) -> NoReturn:
        """Say which covariance is singular, and what helps."""
        who = f"GaussianMixture(covariance={self.covariance!r}, components={self.components}, ridge={self.ridge:g})"
        if self.covariance == "tied":
            what = f"the covariance of all components is singular, from {float(mass.sum()):.6g} data"
        else:
            k = int(singular.nonzero()[0])
            what = f"component {k} has a singular covariance: it holds {float(mass[k]):.6g} of {mass.sum():.6g} data"
        raise ValueError(
            f"{who}: {what}, in {self.dim} dimensions. Use a larger ridge, prior=GaussianMixturePrior(), fewer "
            f"components, a simpler covariance or another start; leave out constant dimensions; in float32 try float64."
        )

    @torch.no_grad()
    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Start from k-means: its centres, its mean spread within clusters for all components, and equal weights.

        Args:
            x: Data, shape ``(N, dim)``.
            seed: Seed of k-means++; ten sweeps of `KMeans` follow.

        Raises:
            ValueError: If there are no data, some are not finite, or their covariance is singular (fewer data than
                dimensions, or a constant dimension) and there is neither ridge nor prior.
        """
        self.check(x)
        clusters = KMeans(dim=self.dim, components=self.components, variance=0).to(x)
        clusters.start(x, seed=seed)
        for _ in range(10):
            clusters.maximize(clusters.statistics(x))
        gaps, y = x - clusters.loc[clusters.nearest(x)], x - clusters.center
        within, total = (part.double().mT @ part.double() for part in (gaps, y))
        variances = total.diagonal() / len(x)
        self.center.copy_(clusters.center)
        if self.prior is not None and self.prior.scale is None:
            least = variances.mean().where(variances.any(), 1.0) * 1e-6  # of a dimension that is constant
            self.prior_scale.copy_(variances.clamp_min(least) / self.components ** (1 / self.dim))
        mass = variances.new_full((self.components,), len(x) / self.components)
        for matrix in (within, total):  # the second where clusters are single data
            scatter = self.kind.of_all(matrix / len(x)) * self.kind.squares * self.kind.per_component(mass)
            raw, singular = self._raw(scatter, mass, variances)
            if not singular.any():
                break
        else:
            self._refuse(singular, mass)
        self.loc.copy_(clusters.loc)
        self.logits.zero_()
        self.raw_covariance.copy_(raw)

    def log_prior(self) -> Tensor:
        """Log-density of the prior in nats, 0-dim, of the weights and (co)variances; zero if there is none."""
        if self.prior is None:
            return super().log_prior()
        dtype = working_dtype(self.logits.dtype)  # half precisions have no inverses
        alpha = self.logits.new_tensor(float(self.prior.concentration), dtype=dtype)
        counted = (alpha * self.components).lgamma() - self.components * alpha.lgamma()
        weights = counted + (alpha - 1) * self._log_weights(dtype).sum()
        raw, scale = self.raw_covariance.to(dtype), self.prior_scale.to(dtype)
        return weights + self.kind.log_inverse_wishart(raw, self.dof, scale)

    def extra_repr(self) -> str:
        """Show the sizes and the kind of covariance."""
        return f"dim={self.dim}, components={self.components}, covariance={self.covariance!r}"
