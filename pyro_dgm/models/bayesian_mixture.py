# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of normal distributions whose weights, means and covariances are random too; the guide is mean-field."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from pyro.ops.indexing import Vindex
from torch import Tensor, nn

from pyro_dgm.distributions.normal_wishart import NormalWishart, weighted_moments
from pyro_dgm.models.check_vectors import check_vectors
from pyro_dgm.models.normal_prior import normal_prior
from pyro_dgm.nn.full_precision import full_precision


class BayesianMixture(PyroModule):
    r"""Dirichlet weights, normal-Wishart components, and a posterior in which all three are independent.

    .. math::
        \pi \sim \mathrm{Dirichlet}(\alpha_0), \quad (\mu_k, \Lambda_k) \sim \mathrm{NormalWishart}, \quad
        z_n \sim \pi, \quad x_n \sim N(\mu_{z_n}, \Lambda_{z_n}^{-1}); \qquad
        q = q(\pi) \prod_k q(\mu_k, \Lambda_k) \prod_n q(z_n)

    Fit it by `pyro_dgm.infer.CoordinateAscent` (the formulas of Bishop), by its stochastic form with mini-batches, or
    by gradients (any bound of the house, stock ``Trace_ELBO`` or ``TraceEnum_ELBO``): q is the same family. q(z) is
    always at its optimum given the other two, so only they have parameters.

    With few data per component, or a concentration below 1, components that are not needed lose their weight.

    Args:
        dim: Dimension D of a datum.
        components: Number K of components, a generous one.
        concentration: Of the prior over weights; None is 1 / K.
        mean_precision: How many data the prior of a mean is worth.
        dof: Degrees of freedom of the prior over precisions, above D - 1; None is D, the broadest but one.
        prior_loc: Prior mean of the means, shape ``(D,)``; None is the mean of the data that `start` sees, before it 0.
        prior_scatter: Inverse scale of the prior over precisions, shape ``(D, D)``, so that their mean is
            dof times its inverse; None is the covariance of the data that `start` sees, before it the identity.

    Attributes:
        loc: Means of q(mu), shape ``(K, D)``.

    Raises:
        ValueError: If a size or a number of the prior is out of its range, or ``prior_loc`` or ``prior_scatter`` has
            another shape, or this is not finite and positive definite.

    Source: Bishop (2006), section 10.2; defaults as in scikit-learn's ``BayesianGaussianMixture``.

    >>> mixture = BayesianMixture(dim=2, components=3)
    >>> mixture.model(size=5).shape
    torch.Size([5, 2])
    >>> mixture.weights
    tensor([0.3333, 0.3333, 0.3333], grad_fn=<DivBackward0>)
    """

    def __init__(
        self,
        *,
        dim: int,
        components: int,
        concentration: int | float | None = None,
        mean_precision: int | float = 1.0,
        dof: int | float | None = None,
        prior_loc: Tensor | None = None,
        prior_scatter: Tensor | None = None,
    ) -> None:
        super().__init__()
        concentration = 1 / max(components, 1) if concentration is None else concentration
        dof = dim if dof is None else dof
        if dim < 1 or components < 1 or concentration <= 0 or mean_precision <= 0 or dof <= dim - 1:
            raise ValueError(
                f"BayesianMixture got dim={dim}, components={components}, concentration={concentration}, "
                f"mean_precision={mean_precision}, dof={dof}: all must be positive, and dof above dim - 1."
            )
        self.dim, self.components = dim, components
        self._from_data = prior_loc is None, prior_scatter is None
        loc, tril = normal_prior(self, dim, prior_loc, prior_scatter)
        self.register_buffer("prior_concentration", torch.full((components,), float(concentration)))
        self.register_buffer("prior_loc", loc)
        self.register_buffer("prior_mean_precision", torch.tensor(float(mean_precision)))
        self.register_buffer("prior_dof", torch.tensor(float(dof)))
        self.register_buffer("prior_tril", tril)
        self.log_concentration = nn.Parameter(self.prior_concentration.log())
        self.loc = nn.Parameter(self.prior_loc.expand(components, dim).clone())
        self.log_mean_precision = nn.Parameter(self.prior_mean_precision.log().expand(components).clone())
        self.log_dof = nn.Parameter((self.prior_dof - dim + 1).log().expand(components).clone())  # of what is above D-1
        self.tril = nn.Parameter(torch.zeros(components, dim, dim))  # of S / dof, the diagonal in logs
        self._assign(self.prior)

    @property
    def prior(self) -> NormalWishart:
        """p(mu, Lambda), the same for each component."""
        many = self.components
        return NormalWishart(
            self.prior_loc.expand(many, -1),
            self.prior_mean_precision.expand(many),
            self.prior_dof.expand(many),
            self.prior_tril.expand(many, -1, -1),
        )

    @property
    def posterior(self) -> NormalWishart:
        """q(mu, Lambda)."""
        dof = self.dim - 1 + self.log_dof.exp()
        diagonal = self.tril.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        scatter_tril = dof.sqrt()[:, None, None] * (self.tril.tril(-1) + diagonal)
        return NormalWishart(self.loc, self.log_mean_precision.exp(), dof, scatter_tril)

    @property
    def concentration(self) -> Tensor:
        """Parameters of q(pi), shape ``(K,)``."""
        return self.log_concentration.exp()

    @property
    def weights(self) -> Tensor:
        """Mean of q(pi), shape ``(K,)``."""
        return self.concentration / self.concentration.sum()

    @property
    def covariances(self) -> Tensor:
        """Inverses of the mean precisions, shape ``(K, D, D)``."""
        tril = self.posterior.scatter_tril
        return tril @ tril.mT / self.posterior.dof[:, None, None]

    @pyro_method
    @full_precision
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Score ``x``, or dream ``size`` data without it.

        Args:
            x: Data of shape ``(B, D)``, or nothing.
            size: How many to dream; with x, of how many data it is a mini-batch, if of more than B.

        Returns:
            ``x``, or data of shape ``(size, D)``.

        Raises:
            ValueError: If x has another shape or dtype.
        """
        obs = None if x is None else self._checked(x)
        weights = pyro.sample("weights", dist.Dirichlet(self.prior_concentration))
        with pyro.plate("components", self.components):
            precisions = pyro.sample("precisions", self.prior.precisions())  # (K, D, D)
            locs = pyro.sample("locs", self.prior.locs(precisions))  # (K, D)
        tril = dist.MultivariateNormal(locs, precision_matrix=precisions).scale_tril
        with self._plate(obs, size):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            chosen = Vindex(locs.unsqueeze(-3))[..., z, :], Vindex(tril.unsqueeze(-4))[..., z, :, :]
            return pyro.sample("x", dist.MultivariateNormal(chosen[0], scale_tril=chosen[1]), obs=obs)

    @pyro_method
    @full_precision
    def guide(self, x: Tensor, *, size: int = 1) -> Tensor:
        """q(pi) q(mu, Lambda) q(z | x), with q(z) at its optimum given the other two.

        Args:
            x: Data of shape ``(B, D)``.
            size: Of how many data x is a mini-batch, if of more than B.

        Returns:
            A sample of z, shape ``(B,)``.

        Raises:
            ValueError: If x has another shape or dtype.
        """
        x, q = self._checked(x), self.posterior
        pyro.sample("weights", dist.Dirichlet(self.concentration))
        with pyro.plate("components", self.components):
            precisions = pyro.sample("precisions", q.precisions())
            pyro.sample("locs", q.locs(precisions))
        with self._plate(x, size):
            return pyro.sample("z", dist.Categorical(logits=self.log_scores(x)), infer={"enumerate": "parallel"})

    def _plate(self, x: Tensor | None, size: int) -> Any:
        if x is None or size <= len(x):
            return pyro.plate("data", size if x is None else len(x))
        return pyro.plate("data", size, subsample=torch.arange(len(x), device=x.device))

    def _checked(self, x: Tensor) -> Tensor:
        check_vectors(self, x, dim=self.dim, dtype=self.loc.dtype)
        return x

    @full_precision
    def log_scores(self, x: Tensor) -> Tensor:
        r""":math:`E_q \log \pi_k + E_q \log N(x \mid \mu_k, \Lambda_k^{-1})` for ``(B, D)``, shape ``(B, K)``."""
        expected = self.concentration.digamma() - self.concentration.sum().digamma()
        return expected + self.posterior.expected_log_prob(self._checked(x))

    def responsibilities(self, x: Tensor) -> Tensor:
        """q(z | x) for data ``(B, D)``, shape ``(B, K)``."""
        return self.log_scores(x).softmax(-1)

    @full_precision
    def log_predictive(self, x: Tensor) -> Tensor:
        """Log-density of new data ``(B, D)`` under q, a mixture of Student t: nats, shape ``(B,)`` (eq. 10.81)."""
        return (self.weights.log() + self.posterior.predictive_log_prob(self._checked(x))).logsumexp(-1)

    @torch.no_grad()
    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Set the prior from the data where it is None, and q to the update from the clusters of k-means.

        Args:
            x: Data, shape ``(N, D)``.
            seed: Of k-means.

        Raises:
            ValueError: If there are no data, or they are not finite.
        """
        from sklearn.cluster import KMeans  # heavy, and needed here only
        from sklearn.exceptions import ConvergenceWarning

        x = self._checked(x)
        if not len(x) or not bool(x.isfinite().all()):
            raise ValueError(f"BayesianMixture.start got {len(x)} data: it needs some, and all of them finite.")
        self._prior_from(x)
        clusters = min(self.components, len(x.unique(dim=0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of points too close to tell apart: then one cluster
            found = KMeans(clusters, n_init=1, random_state=seed).fit(x.cpu().numpy())
        one_hot = nn.functional.one_hot(torch.as_tensor(found.labels_, device=x.device).long(), self.components)
        self.loc.copy_(self.prior_loc)
        self.loc[:clusters] = torch.as_tensor(found.cluster_centers_).to(x)  # what the statistics are counted from
        self.coordinate_update(self._statistics(x, one_hot.to(x)))

    def _prior_from(self, x: Tensor) -> None:
        if self._from_data[0]:
            self.prior_loc.copy_(x.mean(0))
        if self._from_data[1]:
            away = x - x.mean(0)
            covariance = away.mT @ away / max(len(x) - 1, 1)
            scale = covariance.diagonal().mean().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
            floor = torch.finfo(x.dtype).eps ** 0.5 * scale  # constant or repeated columns have no variance
            self.prior_tril.copy_(torch.linalg.cholesky(covariance + floor * torch.eye(self.dim).to(x)))

    @torch.no_grad()
    @full_precision
    def coordinate_statistics(self, x: Tensor) -> dict[str, Tensor]:
        """Local step: set q(z) to its optimum, and sum what the other factors need to know about the data.

        Args:
            x: Data, shape ``(B, D)``.

        Returns:
            Sums in float64: ``count``; ``bound``, the data's share of the bound in nats; ``counts``, ``shifts`` and
            ``scatters`` of each component, the latter two counted from its `loc`.
        """
        x = self._checked(x)
        scores = self.log_scores(x)
        return self._statistics(x, scores.softmax(-1)) | {"bound": scores.logsumexp(-1).double().sum()}

    def _statistics(self, x: Tensor, responsibilities: Tensor) -> dict[str, Tensor]:
        limits = torch.finfo(x.dtype)  # below, products would be denormal numbers, which are slow
        responsibilities = responsibilities.where(responsibilities > limits.tiny / limits.eps, 0.0)
        found = zip(("counts", "shifts", "scatters"), weighted_moments(x, responsibilities, self.loc), strict=True)
        return {"count": x.new_tensor(len(x)).double(), **dict(found)}

    @torch.no_grad()
    def coordinate_update(
        self, statistics: dict[str, Tensor], *, scale: int | float = 1.0, rate: int | float = 1.0
    ) -> None:
        """Global step: move q(pi) and q(mu, Lambda) towards their optimum, by natural parameters.

        Args:
            statistics: What `coordinate_statistics` gave, with the parameters as they are.
            scale: How many data each one stands for: N / B for a mini-batch.
            rate: Share of the way: 1 is coordinate ascent, less a step of stochastic variational inference.

        Source: Hoffman, Blei, Wang & Paisley (JMLR 2013), arXiv:1206.7051, section 2.3.
        """
        counts, shifts, scatters = (scale * statistics[name] for name in ("counts", "shifts", "scatters"))
        prior, posterior = (_double(part) for part in (self.prior, self.posterior))
        target = prior.updated(counts, self.loc.double(), shifts, scatters)
        concentration = (1 - rate) * self.concentration.double() + rate * (self.prior_concentration.double() + counts)
        self.log_concentration.copy_(concentration.log())
        self._assign(target if rate == 1 else posterior.towards(target, rate))

    @torch.no_grad()
    def _assign(self, q: NormalWishart) -> None:
        self.loc.copy_(q.loc)
        self.log_mean_precision.copy_(q.mean_precision.log())
        self.log_dof.copy_((q.dof - self.dim + 1).log())
        tril = q.scatter_tril / q.dof.sqrt()[:, None, None]
        self.tril.copy_(tril.tril(-1) + tril.diagonal(dim1=-2, dim2=-1).log().diag_embed())

    def global_bound(self) -> Tensor:
        """Share of q(pi) and q(mu, Lambda) in the bound, minus their KL to the prior, in nats, 0-dim."""
        of_weights = torch.distributions.kl_divergence(
            dist.Dirichlet(self.concentration), dist.Dirichlet(self.prior_concentration)
        )
        return -(of_weights + self.posterior.kl(self.prior).sum())


def _double(belief: NormalWishart) -> NormalWishart:
    return NormalWishart(*(part.double() for part in vars(belief).values()))
