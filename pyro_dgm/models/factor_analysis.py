# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Factor analysis: a few normal factors explain what coordinates share, and each has noise of its own."""

import torch
from torch import Tensor

from pyro_dgm.models.factor_model import FactorModel


class FactorAnalysis(FactorModel):
    r"""A linear model with a normal latent vector and independent noise of its own in each coordinate.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(W z + \mu, \mathrm{diag}(\psi))

    Unlike `PPCA` it does not care in what unit each coordinate is measured, and its maximum has no closed form: EM
    finds it (``statistics`` and ``maximize``), or any bound under any optimiser, for ``guide`` is the exact posterior
    and the bound log p(x) itself. EM is slow where the noise of a coordinate goes to zero.

    >>> analysis = FactorAnalysis(dim=5, latent=2)
    >>> analysis.model(size=3).shape, analysis.noise.shape
    (torch.Size([3, 5]), torch.Size([5]))

    Args:
        dim: Number D of elements of a datum.
        latent: Number L of latent dimensions, fewer than D.
        floor: Smallest variance of the noise, as a share of the coordinate's variance in the data that `start` sees (of
            the others' mean, if it is constant), and before that a variance itself. A coordinate that the factors
            explain alone (a Heywood case), or a constant one, has the likelihood grow without end as its noise
            vanishes.

    Attributes:
        loading: W, shape ``(D, L)``.
        loc: :math:`\mu`, shape ``(D,)``.
        log_scale: Shape ``(D,)``; the variances :math:`\psi` are ``least + exp(2 log_scale)``.
        least: Shape ``(D,)``; the smallest variances of the noise in units of the data.

    Raises:
        ValueError: If a size is not positive, latent is not below dim, or the floor is not positive.

    Source: Rubin & Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47; Bishop (2006), Pattern
    Recognition and Machine Learning, section 12.2.4.
    """

    def __init__(self, *, dim: int, latent: int = 2, floor: int | float = 1e-6) -> None:
        super().__init__(dim=dim, latent=latent, noises=(dim,), floor=floor)

    def spread(self, variances: Tensor) -> Tensor:
        """Take each coordinate's own variance."""
        return variances

    def units(self, x: Tensor) -> Tensor:
        """Measure each coordinate by its standard deviation, so that the start does not depend on units either."""
        x = x.double()
        scale = (x - x.mean(0)).square().mean(0).sqrt()
        return torch.where(scale > 0, scale, 1.0)

    def noise_of(self, variances: Tensor) -> Tensor:
        """Keep the best noise of each coordinate."""
        return variances
