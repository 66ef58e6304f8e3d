# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mixture whose assignments a network guesses: the encoder of a VAE, over a latent variable that is a class."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_dgm.models.mixture import ENUMERATED, Mixture
from pyro_dgm.nn import MLP
from pyro_dgm.nn.raised import raised

Shape = tuple[int, ...]


class AmortisedMixture(PyroModule):
    r"""Keep a mixture's model, and put a network in the place of its exact posterior.

    .. math:: q(z \mid x) = \mathrm{Categorical}(z \mid \mathrm{softmax}(f(x))), \qquad
              \log p(x) - \mathcal{L}(x) = \mathrm{KL}\bigl(q(z \mid x) \,\|\, p(z \mid x)\bigr)

    What EM has for each datum is here one function of the datum, so the bound has a gap that can be read off exactly.
    Train it with z summed (`pyro_dgm.infer.EnumeratedObjective`, or stock `TraceEnum_ELBO`), or sampled by any bound.

    Args:
        mixture: Of which kind, e.g. a `GaussianMixture`; its parameters are trained with the network's.
        shape: Shape of one datum, e.g. ``(2,)``.
        net: Makes the network from ``shape`` and ``(K,)``; it gives logits.

    Raises:
        ValueError: If a size is not positive.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, section 2; the gap: Cremer, Li & Duvenaud (ICML 2018),
    arXiv:1801.03558, section 3.

    >>> import torch
    >>> from pyro_dgm.models import GaussianMixture
    >>> model = AmortisedMixture(mixture=GaussianMixture(dim=2, components=3), shape=(2,))
    >>> x = torch.randn(5, 2)
    >>> model.responsibilities(x).shape, bool((model.elbo(x) <= model.log_prob(x)).all())
    (torch.Size([5, 3]), True)
    """

    def __init__(self, *, mixture: Mixture, shape: Shape, net: Callable[[Shape, Shape], nn.Module] = MLP) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"AmortisedMixture got shape={tuple(shape)}: sizes must be positive, as in (2,).")
        self.mixture, self.shape = mixture, tuple(shape)
        self.net = net(self.shape, (mixture.components,))

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(z) p(x | z), the mixture's own.

        Args:
            x: Data of shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or data of shape ``(size, *shape)``.
        """
        return self.mixture.model(x, size=size)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(z | x).

        Args:
            x: Data of shape ``(B, *shape)``.

        Returns:
            A sample of z, shape ``(B,)``, or all values of it, shape ``(K, 1)``, where it is enumerated.
        """
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Categorical(logits=self.logits(x)), infer=ENUMERATED)

    def logits(self, x: Tensor) -> Tensor:
        """Give log q(z = k | x) up to a constant, shape ``(B, K)``, for data of shape ``(B, *shape)``."""
        weight = next(self.net.parameters(), None)
        return raised(self.net(x if weight is None else x.to(weight.dtype)))

    def responsibilities(self, x: Tensor) -> Tensor:
        """Give q(z = k | x), shape ``(B, K)``, for data of shape ``(B, *shape)``."""
        return self.logits(x).softmax(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Give the mixture's exact log p(x) in nats, shape ``(B,)``, for data of shape ``(B, *shape)``."""
        return self.mixture.log_prob(x)

    def elbo(self, x: Tensor) -> Tensor:
        r"""Give the bound, z summed.

        .. math:: \mathcal{L}(x) = \sum_k q(k \mid x) \bigl[\log p(x, k) - \log q(k \mid x)\bigr]

        Args:
            x: Data of shape ``(B, *shape)``.

        Returns:
            Nats of shape ``(B,)``.
        """
        log_q = self.logits(x).log_softmax(-1)
        q = log_q.exp()
        return (q * (self.mixture.log_joint(x) - log_q)).where(q > 0, 0).sum(-1)  # 0 log 0 is 0
