# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A Bayesian mixture of normals with its assignments summed out, in coordinates for Hamiltonian Monte Carlo."""

import math
from typing import Any, ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor

from pyro_dgm.models.check_vectors import check_vectors
from pyro_dgm.models.pairing import cheapest_pairing
from pyro_dgm.nn.full_precision import full_precision


class MarginalMixture(PyroModule):
    r"""Weights, means and precisions with conjugate priors, and data of the mixture that they make.

    .. math:: w \sim \mathrm{Dirichlet}(\alpha), \quad \Lambda_k \sim \mathcal{W}(W, \nu), \quad
              \mu_k \sim \mathcal{N}(m, (\beta \Lambda_k)^{-1}), \quad
              x_n \sim \sum_k w_k \, \mathcal{N}(\mu_k, \Lambda_k^{-1})

    It is the posterior of variational Bayes for mixtures, in other coordinates: the Wishart's Cholesky factor is
    :math:`U A_k` with :math:`U U^\top = W`, chi-squared squares on the diagonal of A and standard normals below it
    (Bartlett), so that every latent variable lives where `pyro.infer.NUTS` can change coordinates; nothing discrete is
    left. There is no guide.

    Args:
        components: K.
        mean: m, shape ``(D,)``.
        scale: W, a positive definite matrix of shape ``(D, D)``; the prior mean of a precision is W times ``dof``.
        dof: The Wishart's degrees of freedom, above D - 1; D if not given.
        concentration: alpha, of each component; 1 / K if not given.
        mean_precision: beta.

    Raises:
        ValueError: If a shape is another, W is not positive definite, or a number is out of its range.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2, eq. 10.38-10.40; Bartlett (1933) for
    the Wishart's factor.

    >>> prior = MarginalMixture(components=3, mean=torch.zeros(2), scale=torch.eye(2))
    >>> prior.model(size=5).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        *,
        components: int,
        mean: Tensor,
        scale: Tensor,
        dof: int | float | None = None,
        concentration: int | float | None = None,
        mean_precision: int | float = 1,
    ) -> None:
        super().__init__()
        dim = len(mean)
        dof = dim if dof is None else dof
        concentration = 1 / components if concentration is None else concentration
        if mean.dim() != 1 or scale.shape != (dim, dim) or components < 1:
            raise ValueError(
                f"MarginalMixture got a mean of shape {tuple(mean.shape)}, a scale of shape {tuple(scale.shape)} and "
                f"components={components}: (D,), (D, D) and at least 1 are needed."
            )
        if not (dof > dim - 1 and concentration > 0 and mean_precision > 0):
            raise ValueError(
                f"MarginalMixture got dof={dof}, concentration={concentration}, mean_precision={mean_precision} for "
                f"{dim} dimensions: dof must be above {dim - 1}, the others above 0."
            )
        factor, wrong = torch.linalg.cholesky_ex(scale)
        if wrong:
            raise ValueError("MarginalMixture got a scale that is not positive definite. Add to its diagonal.")
        self.dim, self.components, self.dof = dim, components, float(dof)
        self.concentration, self.mean_precision = float(concentration), float(mean_precision)
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("factor", factor)

    @pyro_method
    @full_precision
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(w, mu, Lambda) p(x | w, mu, Lambda).

        Args:
            x: Data of shape ``(B, D)``, or nothing.
            size: How many to dream, all of one mixture.

        Returns:
            ``x``, or dreamt data of shape ``(size, D)``.

        Raises:
            ValueError: If x has another shape or dtype.
        """
        if x is not None:
            check_vectors(self, x, dim=self.dim, dtype=self.mean.dtype)
        like = self.mean.new_ones
        weights = pyro.sample("weights", dist.Dirichlet(self.concentration * like(self.components)))
        degrees = self.dof - torch.arange(self.dim, dtype=self.mean.dtype, device=self.mean.device)
        with pyro.plate("components", self.components):
            squares = pyro.sample("squares", dist.Chi2(degrees).to_event(1))  # (K, D)
            below = like(self.dim * (self.dim - 1) // 2)
            below = pyro.sample("below", dist.Normal(0 * below, below).to_event(1))  # (K, D (D - 1) / 2)
            root = self.precision_root(squares, below)
            spread = root.mT.inverse() / math.sqrt(self.mean_precision)  # any root of the covariance scores it
            around = dist.MultivariateNormal(self.mean, covariance_matrix=spread @ spread.mT)
            means = pyro.sample("means", around)  # (K, D)
        with pyro.plate("data", size if x is None else len(x)):
            return pyro.sample("x", _Clouds(weights, means, root), obs=x)

    @full_precision
    def precision_root(self, squares: Tensor, below: Tensor) -> Tensor:
        """Make the Cholesky factors of precisions: ``(*batch, D)`` and ``(*batch, D (D-1) / 2)`` to (*batch, D, D)."""
        rows, columns = torch.tril_indices(self.dim, self.dim, offset=-1, device=squares.device)
        bartlett = torch.diag_embed(squares.sqrt())
        bartlett[..., rows, columns] = below
        return self.factor @ bartlett

    def coordinates(self, weights: Tensor, means: Tensor, covariances: Tensor) -> dict[str, Tensor]:
        """Express a mixture in the model's latent variables, e.g. to start a chain from it.

        Args:
            weights: Shape ``(K,)``; they are kept off zero.
            means: Shape ``(K, D)``.
            covariances: Shape ``(K, D, D)``.

        Returns:
            A value for each latent site.
        """
        root = torch.linalg.cholesky(torch.linalg.inv(covariances))
        bartlett = torch.linalg.solve_triangular(self.factor, root, upper=False)
        rows, columns = torch.tril_indices(self.dim, self.dim, offset=-1, device=means.device)
        weights = weights.clamp_min(1e-6)
        return {
            "weights": weights / weights.sum(),
            "squares": bartlett.diagonal(dim1=-2, dim2=-1).square(),
            "below": bartlett[..., rows, columns],
            "means": means,
        }

    def covariances(self, values: dict[str, Tensor]) -> Tensor:
        """Give the covariances, shape ``(*draws, K, D, D)``, of values of the latent variables."""
        return torch.cholesky_inverse(self.precision_root(values["squares"], values["below"]))

    def relabelled(self, draws: dict[str, Tensor], means: Tensor) -> dict[str, Tensor]:
        """Order each draw's components by given means, for the posterior does not care about their order.

        Args:
            draws: A value for each latent site, each with S draws in front.
            means: Those to be near to, shape ``(K, D)``.

        Returns:
            The same draws, in which component k is the same cloud as far as can be.
        """
        orders = cheapest_pairing(torch.cdist(means.expand_as(draws["means"]), draws["means"]))  # (S, K)
        rows = torch.arange(len(orders), device=means.device)[:, None]
        return {name: values[rows, orders] for name, values in draws.items()}

    def log_prob(self, x: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Score data under one or more values of the latent variables.

        Args:
            x: Shape ``(B, D)``.
            values: A value for each latent site, each with the same dimensions ``*draws`` in front.

        Returns:
            Nats of shape ``(*draws, B)``.
        """
        return self.log_joint(x, values).logsumexp(-1)

    @full_precision
    def log_joint(self, x: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Score data with each component: as `log_prob`, of shape ``(*draws, B, K)``."""
        root = self.precision_root(values["squares"], values["below"])
        return _log_joint(x, values["weights"], values["means"], root)


def _log_joint(x: Tensor, weights: Tensor, means: Tensor, root: Tensor) -> Tensor:
    """Log w_k + log N(x_b | k), shape ``(*draws, B, K)``; all components are one product of matrices."""
    *draws, components, dim = means.shape
    flat = root.transpose(-3, -2).reshape(*draws, dim, components * dim)
    shift = (means[..., None, :] @ root).reshape(*draws, 1, components * dim)
    away = (x @ flat - shift).square().reshape(*draws, len(x), components, dim).sum(-1)
    volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * dim * math.log(2 * math.pi)
    return (weights.log() + volume)[..., None, :] - 0.5 * away


class _Clouds(dist.TorchDistribution):
    """The mixture itself, of event shape ``(D,)``."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = dist.constraints.real_vector

    def __init__(self, weights: Tensor, means: Tensor, root: Tensor, batch_shape: Any = ()) -> None:
        self.weights, self.means, self.root = weights, means, root
        super().__init__(torch.Size(batch_shape), means.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        return type(self)(self.weights, self.means, self.root, batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        z = dist.Categorical(self.weights).sample(shape)
        noise = torch.randn(*shape, self.means.shape[-1], 1, dtype=self.means.dtype, device=self.means.device)
        away = torch.linalg.solve_triangular(self.root[z].mT, noise, upper=True)
        return self.means[z] + away[..., 0]

    @full_precision
    def log_prob(self, x: Tensor) -> Tensor:
        return _log_joint(x, self.weights, self.means, self.root).logsumexp(-1)
