# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of linear factor models: a normal latent vector, mapped linearly into the data, plus independent noise."""

import math
from abc import abstractmethod

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_dgm.distributions import StandardNormal
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.models.check_vectors import check_vectors
from pyro_dgm.models.posterior_factor import posterior_factor
from pyro_dgm.models.principal_axes import principal_axes
from pyro_dgm.nn.full_precision import full_precision


class FactorModel(PyroModule):
    r"""A linear model with a normal latent vector, of which everything is known in closed form.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(W z + \mu, \Psi), \qquad x \sim N(\mu, W W^\top + \Psi)

    The guide is the exact posterior, so that one sample's log-weight is log p(x) itself. No D x D matrix is made: the
    work for a batch is O(B D L). A subclass says what noise is allowed: `noise_of` and the shape of ``log_scale``.

    Args:
        dim: Number D of elements of a datum.
        latent: Number L of latent dimensions, fewer than D.
        noises: How many variances of noise there are, as a shape.
        floor: Smallest variance of the noise, as a share of that of the data: `start` multiplies it by what `spread`
            says; before a start it is a variance itself. Without a floor the likelihood has no maximum where some
            direction of the data is without noise (fewer data than latent dimensions, a constant coordinate). In
            single precision it should not be below 1e-6.

    Attributes:
        loading: W, shape ``(D, L)``; at first independent normal numbers of variance 1 / L.
        loc: :math:`\mu`, shape ``(D,)``.
        log_scale: Makes the noise, whose variance is ``least + exp(2 log_scale)``.
        least: The smallest variance of the noise in units of the data, of the shape of ``log_scale``.
        origin: What ``statistics`` measures x from, shape ``(D,)``: zero, and from a start on the mean of its data. In
            single precision it should be near the data.

    Raises:
        ValueError: If a size is not positive, latent is not below dim, or the floor is not positive.
    """

    origin: Tensor
    least: Tensor

    def __init__(self, *, dim: int, latent: int, noises: tuple[int, ...], floor: int | float) -> None:
        super().__init__()
        if not 1 <= latent < dim:
            raise ValueError(
                f"{type(self).__name__} got dim={dim}, latent={latent}: it needs 1 <= latent < dim, as {dim} latent "
                f"dimensions can be any covariance already, without noise."
            )
        if not floor > 0:
            raise ValueError(f"{type(self).__name__} got floor={floor}: a variance above 0 is needed, e.g. 1e-6.")
        self.dim, self.latent, self.floor = dim, latent, floor
        self.loading = nn.Parameter(torch.randn(dim, latent) * latent**-0.5)
        self.loc = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(noises))
        self.prior = StandardNormal(latent)
        self.register_buffer("origin", torch.zeros(dim))
        self.register_buffer("least", torch.full(noises, float(floor)))

    @abstractmethod
    def noise_of(self, variances: Tensor) -> Tensor:
        """Turn the best noise of each coordinate, shape ``(D,)``, into the best that this model allows."""

    def spread(self, variances: Tensor) -> Tensor:
        """Say what variance the floor is a share of, by those of the data's coordinates ``(D,)``."""
        return variances.mean().expand_as(self.log_scale)

    def units(self, x: Tensor) -> Tensor:
        """Say in what unit each coordinate is measured for a start, shape ``(D,)``: that of the data, unless told."""
        return x.new_ones(self.dim)

    @property
    def noise(self) -> Tensor:
        """The variance of the noise of each coordinate, shape ``(D,)``."""
        return (self.least + (2 * self.log_scale).exp()).expand(self.dim)

    @property
    @full_precision
    def covariance(self) -> Tensor:
        """The covariance of x, W W^T + Psi, shape ``(D, D)``."""
        return self.loading @ self.loading.mT + self.noise.diag()

    @pyro_method
    @full_precision
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(z) p(x | z): score ``x``, or dream ``size`` data without it.

        Args:
            x: Real numbers of shape ``(B, dim)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or data of shape ``(size, dim)``.

        Raises:
            ValueError: If x is not floating point, or has another shape or dtype than the model.
        """
        if x is not None:
            check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior())  # (B, L)
            likelihood = Independent(Normal(z @ self.loading.mT + self.loc, self.noise.sqrt()), 1)
            return pyro.sample("x", likelihood, obs=x)  # (B, D)

    @pyro_method
    @full_precision
    def guide(self, x: Tensor) -> Tensor:
        """p(z | x), exactly.

        Args:
            x: Real numbers of shape ``(B, dim)``.

        Returns:
            A sample of z, shape ``(B, latent)``.

        Raises:
            ValueError: If x is not floating point, or has another shape or dtype than the model.
        """
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))  # type: ignore[arg-type]  # (B, L)

    @full_precision
    def posterior(self, x: Tensor) -> MultivariateNormal:
        r"""Infer z, with one covariance for all data.

        .. math:: p(z \mid x) = N(M^{-1} W^\top \Psi^{-1} (x - \mu),\; M^{-1}), \qquad M = I + W^\top \Psi^{-1} W

        Args:
            x: Real numbers of shape ``(B, dim)``.

        Returns:
            A distribution of ``batch_shape`` ``(B,)`` and ``event_shape`` ``(L,)``.
        """
        mean, factor = self._infer(x)[1:]
        return dist.MultivariateNormal(mean, scale_tril=factor)

    @full_precision
    def log_prob(self, x: Tensor) -> Tensor:
        r"""Compute log p(x) exactly, without cancellation: the squared errors are those of the best z.

        .. math:: -2 \log p(x) = \|\Psi^{-1/2} (x - \mu - W \hat z)\|^2 + \|\hat z\|^2
                  + \log |\Psi| + \log |M| + D \log 2 \pi, \qquad \hat z = \mathrm{E}[z \mid x]

        Args:
            x: Real numbers of shape ``(B, dim)``.

        Returns:
            Nats, shape ``(B,)``.

        Raises:
            ValueError: If x is not floating point, or has another shape or dtype than the model.
        """
        return self._score(*self._infer(x))

    def _infer(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the errors x - mu in units of the noise (B, D), E[z | x] (B, L) and a Cholesky factor of Cov[z | x]."""
        check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)
        scale = self.noise.sqrt()
        factor, encoder = posterior_factor(self.loading / scale.unsqueeze(-1))
        errors = (x - self.loc) / scale
        return errors, errors @ encoder.mT, factor

    def _score(self, errors: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
        scale = self.noise.sqrt()
        rest = errors - mean @ (self.loading / scale.unsqueeze(-1)).mT
        log_volume = scale.log().sum() - factor.diagonal().log().sum() + 0.5 * self.dim * math.log(2 * math.pi)
        return -0.5 * (rest.square().sum(-1) + mean.square().sum(-1)) - log_volume

    @torch.no_grad()
    def start(self, x: Tensor, *, seed: int = 0) -> None:
        r"""Start from the principal axes :math:`u_i`, whose variances are :math:`\lambda_i`.

        .. math:: \mu = \bar x, \qquad W = (\sqrt{\lambda_1 - \sigma^2}\, u_1, \dots), \qquad
                  \sigma^2 = \frac{1}{D - L} \sum_{i > L} \lambda_i

        and the noise what is left of each coordinate's variance. Another seed than 0 gives random loadings that explain
        half of it, from which to see EM find the axes, or to look for another maximum.

        Args:
            x: Data of shape ``(B, dim)``; one datum is enough.
            seed: 0 for the principal axes, any other for random loadings.

        Raises:
            ValueError: If x is empty, not finite, not floating point, or has another shape or dtype than the model.

        Source: Tipping & Bishop (1999), Journal of the Royal Statistical Society B 61, section 3.2 and appendix A.
        """
        check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)
        unit = self.units(x)
        mean, variances, axes, each = principal_axes(x / unit, self.latent)
        self._set_floor(x, mean * unit, each * unit.square())
        if seed == 0:
            noise = ((each.sum() - variances.sum()) / (self.dim - self.latent)).clamp(min=self.floor * each.mean())
            loading = axes * (variances - noise).clamp(min=0.0).sqrt()
        else:
            chance = torch.randn(axes.shape, generator=torch.Generator().manual_seed(seed), dtype=axes.dtype)
            loading = (each / (2 * self.latent)).sqrt().unsqueeze(-1) * chance.to(axes.device)
            each = each / 2 + loading.square().sum(1)
        mean, loading, each = mean * unit, loading * unit.unsqueeze(-1), each * unit.square()
        self.origin.copy_(mean)
        self._take(mean, loading, self.noise_of(each - loading.square().sum(1)))

    def _set_floor(self, x: Tensor, mean: Tensor, variances: Tensor) -> None:
        """Make the floor a share of the data's variance; what is rounding of a constant is none."""
        rounding = (4 * torch.finfo(x.dtype).eps * mean).square()
        spread = self.spread(torch.where(variances > rounding, variances, 0.0))
        mean_spread = spread.mean()
        spread = torch.where(spread > 0, spread, torch.where(mean_spread > 0, mean_spread, 1.0))
        self.least.copy_((self.floor * spread).clamp(min=torch.finfo(self.least.dtype).tiny ** 0.5))

    @torch.no_grad()
    @full_precision
    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """E-step: sum the expected sufficient statistics of a batch.

        Args:
            x: Real numbers of shape ``(B, dim)``.

        Returns:
            Sums over the batch, which may be added up over batches and scaled: ``count``; of y = x - ``origin``:
            ``x`` and ``x_squared``, both ``(D,)``; ``z`` ``(L,)``; ``x_z`` ``(D, L)``; ``z_z`` ``(L, L)``; and
            ``log_likelihood`` in nats. They are in float64, lest sums over many data lose digits.
        """
        errors, mean, factor = self._infer(x)
        centred = x - self.origin
        found = {
            "count": mean.new_full((), len(x)),
            "log_likelihood": self._score(errors, mean, factor).sum(),
            "x": centred.sum(0),
            "x_squared": centred.square().sum(0),
            "x_z": centred.mT @ mean,
            "z": mean.sum(0),
            "z_z": mean.mT @ mean + len(x) * factor @ factor.mT,
        }
        return {name: value.double() for name, value in found.items()}

    @torch.no_grad()
    def maximize(self, statistics: dict[str, Tensor]) -> None:
        r"""M-step: regress x on z; the mean is that of the data, which is best whatever the rest.

        .. math:: W = S_{xz} S_{zz}^{-1}, \qquad \psi_d = (S_{xx} - W S_{zx})_{dd}

        with S the expected second moments about the means. (With the mean fixed, the expectations at it are known from
        those at another: it shifts both. So the likelihood never falls, though the mean is no part of the E-step.)

        Args:
            statistics: What `statistics` gave, added up; only ratios to ``count`` count.

        Source: Rubin & Thayer (1982), Psychometrika 47; Tipping & Bishop (1999), appendix B; the mean as in ECME, Liu &
        Rubin (1994), Biometrika 81.
        """
        mean = {name: value / statistics["count"] for name, value in statistics.items()}
        second = mean["z_z"] - mean["z"].outer(mean["z"])
        cross = mean["x_z"] - mean["x"].outer(mean["z"])
        each = mean["x_squared"] - mean["x"].square()
        loading = cross @ torch.linalg.pinv(second, hermitian=True)
        self._take(self.origin + mean["x"], loading, self.noise_of(each - (loading * cross).sum(1)))

    def log_prior(self) -> Tensor:
        """Give the log-density of the parameters' prior: zero, for they have none."""
        return self.loc.new_zeros(())

    def _take(self, loc: Tensor, loading: Tensor, noise: Tensor) -> None:
        """Set the parameters in place; noise is raised to the floor."""
        tiny = torch.finfo(self.loc.dtype).eps * self.least
        self.loc.copy_(loc)
        self.loading.copy_(loading)
        self.log_scale.copy_(0.5 * (noise - self.least).clamp(min=tiny).log())
