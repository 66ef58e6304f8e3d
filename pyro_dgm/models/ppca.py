# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Probabilistic PCA: principal component analysis as a latent variable model with one variance of noise."""

from torch import Tensor

from pyro_dgm.models.factor_model import FactorModel


class PPCA(FactorModel):
    r"""A linear model with a normal latent vector and the same noise everywhere.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(W z + \mu, \sigma^2 I), \qquad
              z \mid x \sim N(M^{-1} W^\top (x - \mu), \sigma^2 M^{-1}), \quad M = W^\top W + \sigma^2 I

    At its maximum the columns of W span the principal subspace. There are three ways there: the closed form
    (`maximum_likelihood`), EM (``statistics`` and ``maximize``), and any bound under any optimiser, for ``guide`` is
    the exact posterior and the bound log p(x) itself.

    >>> x = torch.randn(100, 1) * torch.tensor([3.0, 4.0, 0.0]) + 0.1 * torch.randn(100, 3)
    >>> ppca = PPCA(dim=3, latent=1)
    >>> ppca.maximum_likelihood(x)
    >>> ppca.posterior(x).mean.shape, ppca.log_prob(x).shape
    (torch.Size([100, 1]), torch.Size([100]))

    Args:
        dim: Number D of elements of a datum.
        latent: Number L of latent dimensions, fewer than D.
        floor: Smallest variance of the noise, as a share of the mean variance of the data's coordinates: `start` and
            `maximum_likelihood` take it from their data, and before them (or of data that are all equal) that is 1.
            The likelihood grows without end where data lie within an L-dimensional plane, as L + 1 of them always do.
            In double precision it may be smaller, where the noise is.

    Attributes:
        loading: W, shape ``(D, L)``.
        loc: :math:`\mu`, shape ``(D,)``.
        log_scale: A number; the variance :math:`\sigma^2` is ``least + exp(2 log_scale)``.
        least: The smallest variance of the noise in units of the data.

    Raises:
        ValueError: If a size is not positive, latent is not below dim, or the floor is not positive.

    Source: Tipping & Bishop (1999), Probabilistic principal component analysis, Journal of the Royal Statistical
    Society B 61; Bishop (2006), Pattern Recognition and Machine Learning, section 12.2.
    """

    def __init__(self, *, dim: int, latent: int = 2, floor: int | float = 1e-6) -> None:
        super().__init__(dim=dim, latent=latent, noises=(), floor=floor)

    def noise_of(self, variances: Tensor) -> Tensor:
        """Average the best noise of each coordinate."""
        return variances.mean()

    def maximum_likelihood(self, x: Tensor) -> None:
        r"""Take the parameters of largest likelihood, in closed form: one of many, as W may be rotated.

        .. math:: \mu = \bar x, \qquad W = U_L (\Lambda_L - \sigma^2 I)^{1/2}, \qquad
                  \sigma^2 = \frac{1}{D - L} \sum_{i > L} \lambda_i

        with the eigenvalues :math:`\lambda_i` and -vectors of the data's covariance (with 1 / B). Fewer data than
        dimensions have a maximum too.

        Args:
            x: Data of shape ``(B, dim)``.

        Raises:
            ValueError: If x is empty, not finite, not floating point, or has another shape or dtype than the model.

        Source: Tipping & Bishop (1999), section 3.2, eq. 7 and 8.
        """
        self.start(x)
