# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The Wishart distribution over precision matrices, given by the Cholesky factor of its inverse scale."""

import math
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_dgm.nn.full_precision import full_precision


class Wishart(TorchDistribution):
    r"""Positive definite matrices, the sum of outer products of ``dof`` normal vectors with covariance S^-1.

    .. math:: \log p(\Lambda) = \tfrac{\nu - D - 1}{2} \log |\Lambda| - \tfrac12 \mathrm{tr}(S \Lambda)
              + \tfrac{\nu}{2} \log |S| - \tfrac{\nu D}{2} \log 2 - \log \Gamma_D(\tfrac\nu2)

    Its mean is :math:`\nu S^{-1}`: a scatter matrix S of :math:`\nu` vectors says how precise they are. PyTorch's own,
    of batches, warns of singular samples whether there are such or not, and draws anew.

    Args:
        dof: Degrees of freedom, above D - 1, shape ``(*batch)``.
        scatter_tril: Lower Cholesky factor of S, shape ``(*batch, D, D)``.
        validate_args: Whether to check arguments; Pyro's setting if None.

    Raises:
        ValueError: If arguments are checked and one is out of its range.

    Source: Bishop (2006), appendix B, with S the inverse of his W.

    >>> Wishart(torch.tensor(5.0), torch.eye(2)).mean.diagonal()
    tensor([5., 5.])
    """

    arg_constraints = {"scatter_tril": constraints.lower_cholesky}
    support = constraints.positive_definite
    has_rsample = True

    def __init__(self, dof: Tensor, scatter_tril: Tensor, *, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(dof.shape, scatter_tril.shape[:-2])
        self.dof = dof.expand(batch)
        self.scatter_tril = scatter_tril.expand(*batch, -1, -1)
        super().__init__(batch, scatter_tril.shape[-2:], validate_args=validate_args)
        least = scatter_tril.shape[-1] - 1
        if self._validate_args and not bool((dof > least).all()):
            raise ValueError(
                f"Wishart got degrees of freedom down to {float(dof.min())}: for matrices of {least + 1} x {least + 1} "
                f"they must be above {least}."
            )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Repeat along new batch dimensions."""
        new = self._get_checked_instance(Wishart, _instance)
        new.dof = self.dof.expand(batch_shape)
        new.scatter_tril = self.scatter_tril.expand(*batch_shape, -1, -1)
        super(Wishart, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The expected matrix, shape ``(*batch, D, D)``."""
        return self.dof[..., None, None] * torch.cholesky_inverse(self.scatter_tril)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw by Bartlett's decomposition, shape ``(*sample, *batch, D, D)``."""
        dim, shape = self.event_shape[-1], self._extended_shape(torch.Size(sample_shape))
        halves = self._halves().expand(*shape[:-2], dim)
        squares = 2 * torch._standard_gamma(halves).clamp_min(torch.finfo(halves.dtype).tiny)
        normal = torch.randn(shape, dtype=halves.dtype, device=halves.device).tril(-1)
        factor = normal + squares.sqrt().diag_embed()
        tril = self.scatter_tril.expand(shape)
        root = torch.linalg.solve_triangular(tril.mT, factor, upper=True)
        return root @ root.mT

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Score matrices ``(*batch, D, D)``, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        dim = self.event_shape[-1]
        log_det = 2 * torch.linalg.cholesky(value).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        trace = (self.scatter_tril * (value @ self.scatter_tril)).sum((-2, -1))
        log_normalizer = self.dof * (dim / 2 * math.log(2) - self._half_log_det()) + self._log_gamma()
        return (self.dof - dim - 1) / 2 * log_det - trace / 2 - log_normalizer

    def expected_log_det(self) -> Tensor:
        r""":math:`E \log |\Lambda|`, shape ``(*batch)`` (Bishop 2006, eq. B.81)."""
        dim = self.event_shape[-1]
        return self._halves().digamma().sum(-1) + dim * math.log(2) - 2 * self._half_log_det()

    def kl(self, prior: Any) -> Tensor:
        """KL divergence to another `Wishart` in nats, shape ``(*batch)``."""
        dim = self.event_shape[-1]
        ratio = torch.linalg.solve_triangular(
            self.scatter_tril, prior.scatter_tril.expand_as(self.scatter_tril), upper=False
        )
        log_ratio = prior.dof * (self._half_log_det() - prior._half_log_det())
        trace = self.dof / 2 * (ratio.square().sum((-2, -1)) - dim)
        digammas = (self.dof - prior.dof) / 2 * self._halves().digamma().sum(-1)
        return log_ratio + trace + prior._log_gamma() - self._log_gamma() + digammas

    def _halves(self) -> Tensor:
        """(dof - i) / 2 for i = 0 ... D - 1, shape ``(*batch, D)``."""
        return (self.dof.unsqueeze(-1) - torch.arange(self.event_shape[-1], device=self.dof.device)) / 2

    def _half_log_det(self) -> Tensor:
        return self.scatter_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _log_gamma(self) -> Tensor:
        """Log of the multivariate gamma function of dof / 2, shape ``(*batch)``."""
        dim = self.event_shape[-1]
        return dim * (dim - 1) / 4 * math.log(math.pi) + self._halves().lgamma().sum(-1)
