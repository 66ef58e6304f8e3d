# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a mixture of normals asks of a kind of covariance: densities, moments, and the way back to parameters."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution

LOG_2PI = math.log(2 * math.pi)


class Covariance(ABC):
    """Formulas for K normals of D dimensions, whose parameters are passed in; data are columns y, shape ``(D, B)``.

    Densities and moments come in two ways. *Natural*: the log-density is linear in features of y (for "full", y and
    the upper triangle of y y^T), so all K densities are one product of matrices and all moments another, with half the
    operations of the plain formulas. It subtracts large numbers where components are narrow and far from the centre.
    *Plain*: densities by whitened data, moments by the gaps to the components' means, all of shape ``(K, D, B)``.

    Args:
        dim: D.
        components: K.
    """

    def __init__(self, dim: int, components: int) -> None:
        self.dim, self.components = dim, components

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the raw parameter, and of the (co)variances, which is scikit-learn's."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of features."""

    @abstractmethod
    def covariance(self, raw: Tensor) -> Tensor:
        """Turn the raw parameter into (co)variances."""

    @abstractmethod
    def raw(self, covariance: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
        """Turn (co)variances into the raw parameter, and tell where they are singular: bools, ``(K,)`` or 0-dim.

        Singular is one with a variance, given the dimensions before it, that is not above the floor: of the shape of
        `diagonal`, or ``(D,)``.
        """

    @abstractmethod
    def distribution(self, loc: Tensor, raw: Tensor, z: Tensor) -> Distribution:
        """Give the normals of component numbers z."""

    @abstractmethod
    def features(self, y: Tensor) -> Tensor:
        """Make the features, shape ``(F, B)``; the first D are y."""

    @abstractmethod
    def coefficients(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make what multiplies the features, ``(K, F)``, what is added, ``(K,)``, and how much rounding can grow.

        The last, 0-dim, is the largest sum of the sizes of all terms of the quadratic form, one standard deviation
        off a component's mean.
        """

    def common(self, y: Tensor, raw: Tensor) -> Tensor | float:
        """Give the part of the log-density that is the same for all components, shape ``(B,)``."""
        return 0.0

    def shared_second(self, y: Tensor) -> Tensor | float:
        """Sum what of the squares is the same for all components."""
        return 0.0

    @abstractmethod
    def second(self, sums: Tensor, shared: Tensor | float) -> Tensor:
        """Take the sums of squares, of `shape`, out of the weighted sums of features, ``(K, F)``."""

    @abstractmethod
    def whitener(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make two tensors for `squared_distance`, and half the log-determinants, ``(K,)`` or 0-dim."""

    @abstractmethod
    def squared_distance(self, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Give the squared Mahalanobis distances, ``(K, B)``."""

    @abstractmethod
    def outer(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum a b^T over the last dimension of tensors ``(K, D, B)``: what of it has `shape`."""

    @abstractmethod
    def per_component(self, values: Tensor) -> Tensor:
        """Line numbers ``(K,)`` up with `shape`; where all share one covariance, sum them."""

    @abstractmethod
    def of_all(self, matrix: Tensor) -> Tensor:
        """Give all components one covariance matrix, ``(D, D)``, or what of it has `shape`."""

    @abstractmethod
    def diagonal(self, values: Tensor) -> Tensor:
        """Take the variances out of numbers of `shape`: ``(..., D)``, or ``(..., 1)`` where dimensions share one."""

    @property
    @abstractmethod
    def squares(self) -> int:
        """How many squares a datum adds to a variance: D where dimensions share it, else 1."""

    @property
    @abstractmethod
    def minors(self) -> int:
        """How many dimensions a covariance matrix has: D, or 1 for variances."""

    def moved(self, second: Tensor, first: Tensor, mass: Tensor, loc: Tensor) -> Tensor:
        """Turn sums of squares of gaps into those of y = gap + loc; ``first``, ``(K, D)``, sums the gaps."""
        a, b = first[..., None], loc[..., None]
        return second + self.outer(a, b) + self.outer(b, a) + self.outer(b * mass[:, None, None], b)

    def scatter(self, first: Tensor, second: Tensor, mean: Tensor) -> Tensor:
        """Turn sums of squares of y into those of gaps to the components' means, ``(K, D)``."""
        return second - self.outer(mean[..., None], first[..., None])

    def log_inverse_wishart(self, raw: Tensor, dof: int | float, scale: Tensor) -> Tensor:
        r"""Sum the log-densities of all (co)variances under inverse-Wishart priors, 0-dim.

        .. math:: \log p(\Sigma) = \tfrac\nu2 \log|S| - \tfrac{\nu p}2 \log 2 - \log\Gamma_p(\tfrac\nu2)
                  - \tfrac{\nu + p + 1}2 \log|\Sigma| - \tfrac12 \operatorname{tr}(S \Sigma^{-1})

        with S diagonal, ``scale``, and p = D for covariance matrices; variances have p = 1.
        """
        log_det, trace = self.prior_terms(raw, scale)
        p, count = self.minors, math.prod(self.shape) // self.minors**2
        constant = -0.5 * dof * p * math.log(2) - torch.special.multigammaln(scale.new_tensor(0.5 * dof), p)
        log_scale = self.prior_log_scale(scale)
        return count * constant + 0.5 * dof * log_scale - 0.5 * (dof + p + 1) * log_det - 0.5 * trace

    @abstractmethod
    def prior_terms(self, raw: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Sum log-determinants and traces of S Sigma^-1 over all (co)variances."""

    @abstractmethod
    def prior_log_scale(self, scale: Tensor) -> Tensor:
        """Sum the log-determinants of S over all (co)variances."""
