# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder: draw a latent vector, decode it into a datum; the guide encodes the datum back."""

from collections.abc import Callable

import pyro
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_dgm.distributions import BernoulliLikelihood, DiagonalNormal, StandardNormal
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.nn import MLP
from pyro_dgm.nn.to_unit_interval import ToUnitInterval

Shape = tuple[int, ...]


class VAE(PyroModule):
    r"""A prior, a posterior and a likelihood: three axes, composed from parts.

    .. math:: p(z)\, p(x \mid z) \quad \text{and} \quad q(z \mid x)

    The parts are given as factories (a class, or `functools.partial` of one to set its options), so every size
    follows from ``shape``, ``levels`` and ``latent``:

    >>> from functools import partial
    >>> from pyro_dgm.nn import GatedMLP
    >>> vae = VAE(shape=(8, 8), levels=2, latent=10, encoder=partial(GatedMLP, hidden=(100,)))
    >>> vae.model(size=3).shape
    torch.Size([3, 8, 8])

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)``.
        levels: Number of values an element can take: data are integers 0 ... levels - 1.
        latent: Dimension of z.
        prior: Makes p(z) from ``latent``: a module whose call gives a distribution.
        posterior: Makes from ``latent`` a module that turns the encoder's output, of its ``in_shape``, into q(z | x).
        likelihood: Makes from ``shape`` and ``levels`` a module that turns the decoder's output, of its ``in_shape``,
            into p(x | z).
        encoder: Makes a network from ``shape`` and the posterior's ``in_shape``. It sees data scaled to [0, 1].
        decoder: Makes a network from ``(latent,)`` and the likelihood's ``in_shape``.

    Attributes:
        prior: Call it for p(z).
        posterior: Call it with x, shape ``(*batch, *shape)``, for q(z | x).
        likelihood: Call it with z, shape ``(*batch, latent)``, for p(x | z).

    Raises:
        ValueError: If a size is not positive or levels is below 2.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, section 2 and appendix C.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        levels: int,
        latent: int = 50,
        prior: Callable[[int], nn.Module] = StandardNormal,
        posterior: Callable[[int], nn.Module] = DiagonalNormal,
        likelihood: Callable[[Shape, int], nn.Module] = BernoulliLikelihood,
        encoder: Callable[[Shape, Shape], nn.Module] = MLP,
        decoder: Callable[[Shape, Shape], nn.Module] = MLP,
    ) -> None:
        super().__init__()
        if latent < 1 or levels < 2 or not shape or min(shape) < 1:
            raise ValueError(
                f"VAE got shape={tuple(shape)}, levels={levels}, latent={latent}: sizes must be positive, and a datum "
                f"needs at least 2 levels. A data set's description has both: shape=data.description.shape."
            )
        self.shape, self.levels, self.latent = tuple(shape), levels, latent
        posterior_head, likelihood_head = posterior(latent), likelihood(self.shape, levels)
        self.prior = prior(latent)
        self.posterior = nn.Sequential(
            ToUnitInterval(levels),
            encoder(self.shape, posterior_head.in_shape),  # type: ignore[arg-type]
            posterior_head,
        )
        self.likelihood = nn.Sequential(
            decoder((latent,), likelihood_head.in_shape),  # type: ignore[arg-type]
            likelihood_head,
        )

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(z) p(x | z): score ``x``, or dream ``size`` data without it.

        Args:
            x: Integers of shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or int64 data of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        if x is not None:
            check_integers(self, x, shape=self.shape, levels=self.levels)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior())  # (B, L)
            return pyro.sample("x", self.likelihood(z), obs=x)  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(z | x).

        Args:
            x: Integers of shape ``(B, *shape)``.

        Returns:
            A sample of z, shape ``(B, latent)``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        check_integers(self, x, shape=self.shape, levels=self.levels)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))  # (B, L)
