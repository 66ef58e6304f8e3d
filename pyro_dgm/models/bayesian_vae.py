# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A VAE as a Bayesian model: the decoder's weights have a prior, and one posterior for all data."""

import copy
import math

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_dgm.infer.local_parameters import local_parameters, without_statements
from pyro_dgm.infer.log_weights import log_weights
from pyro_dgm.models.bayesian_weights import BayesianWeights, Posterior
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.models.vae import VAE


class BayesianVAE(PyroModule):
    r"""Put a prior on the weights of a VAE's decoder, and infer them together with the latent vectors.

    .. math:: \log p(x_1, \dots, x_N) \ge \mathrm{E}_{q(w)} \sum_n \mathcal L(x_n; w) - \mathrm{KL}(q(w) \,\|\, p(w)),
              \qquad w \sim N(0, s^2 I)

    with L the VAE's ELBO. A mini-batch of B data counts N / B times, so that a loss is that of all N data, whatever the
    batch. With ``weights="map"`` q(w) is a point :math:`\theta`, and the bound becomes
    :math:`\sum_n \mathcal L(x_n; \theta) + \log p(\theta)`, which bounds log p(theta | X) + log p(X): maximum a
    posteriori. The encoder, and whatever parameters prior, posterior and likelihood have, are learned as they are.

    The sites are ``weights``, outside the data plate, ``z`` and ``x``. The weights belong to no datum, so there is no
    bound per datum: use a bound's ``loss``, or `pyro_dgm.infer.data_set_objective.DataSetObjective` to train;
    `draw` gives a plain VAE for everything else.

    >>> from functools import partial
    >>> from pyro_dgm.infer import ELBO
    >>> from pyro_dgm.nn import MLP
    >>> vae = VAE(shape=(8, 8), levels=2, latent=5, decoder=partial(MLP, hidden=(16,)))
    >>> bayes = BayesianVAE(vae, size=1000)
    >>> x = torch.randint(2, (10, 8, 8))
    >>> ELBO().loss(bayes.model, bayes.guide, x).shape, bayes.draw().model(size=3).shape
    (torch.Size([]), torch.Size([3, 8, 8]))

    Args:
        vae: Where it starts; a copy of it is kept.
        size: Number N of data in the whole data set.
        weights: What q(w) is: ``"normal"``, independent normals, or ``"map"``, a point.
        prior_scale: Standard deviation s of the prior of each weight.
        start_scale: Standard deviation of each weight's normal posterior at the start.

    Attributes:
        decoder: The weights with prior and posterior, a `BayesianWeights`.
        vae: The rest of the VAE.

    Raises:
        ValueError: If it got no VAE, size is below 1, a scale is not positive, or the decoder has no weights.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, appendix F (for mini-batches eq. 14 to 17); Blundell et al.
    (ICML 2015), arXiv:1505.05424, section 3. Unlike there, no local reparameterisation is used.
    """

    def __init__(
        self,
        vae: VAE,
        *,
        size: int,
        weights: Posterior = "normal",
        prior_scale: int | float = 1.0,
        start_scale: int | float = 0.01,
    ) -> None:
        super().__init__()
        if not isinstance(vae, VAE):
            raise ValueError(
                f"BayesianVAE got a {type(vae).__name__}: it needs a VAE. In a program of your own make the weights of "
                f"its networks random by BayesianWeights."
            )
        if size < 1:
            raise ValueError(f"BayesianVAE got size={size}: it is the number of all training data, 1 or more.")
        self.size, self.shape, self.levels = size, vae.shape, vae.levels
        self.vae = copy.deepcopy(vae)
        self.decoder = BayesianWeights(
            self.vae.likelihood[0], posterior=weights, prior_scale=prior_scale, start_scale=start_scale
        )
        self.vae.likelihood[0] = nn.Identity()  # what is left reads a decoder's output as a distribution

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(w) p(z) p(x | z, w): score ``x``, or dream ``size`` data, of one w, without it.

        Args:
            x: A batch of integers, shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or int64 data of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape, or there are more than N.
        """
        weights = self.decoder.model()  # (P,), or (K, 1, P)
        with pyro.plate("data", size) if x is None else self._plate(x):
            z = pyro.sample("z", self.vae.prior())  # (B, L)
            return pyro.sample("x", self.vae.likelihood(self.decoder(weights, z)), obs=x)  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(w) q(z | x).

        Args:
            x: A batch of integers, shape ``(B, *shape)``.

        Returns:
            A sample of z, shape ``(B, latent)``.

        Raises:
            ValueError: If x is not integer or has another shape, or there are more than N.
        """
        self.decoder.guide()
        with self._plate(x):
            return pyro.sample("z", self.vae.posterior(x))  # (B, L)

    def _plate(self, x: Tensor) -> pyro.plate:
        """Let a batch stand for all data."""
        check_integers(self, x, shape=self.shape, levels=self.levels)
        if len(x) > self.size:
            raise ValueError(
                f"BayesianVAE(size={self.size}) got a batch of {len(x)}: size is the number of all training data."
            )
        return pyro.plate("data", self.size, subsample=torch.arange(len(x), device=x.device))

    def draw(self, *, mean: bool = False) -> VAE:
        """Draw weights from the posterior.

        Args:
            mean: Take its mean instead, which for ``weights="map"`` is all there is.

        Returns:
            A plain VAE with these weights, a copy: evaluate it, dream with it, train it on.
        """
        vae = copy.deepcopy(self.vae)
        vae.likelihood[0] = self.decoder.drawn(mean=mean)
        return vae

    @torch.no_grad()
    def log_predictive(self, x: Tensor, *, draws: int = 10, particles: int = 10) -> Tensor:
        r"""Estimate the log-probability of new data, averaged over the posterior of the weights.

        .. math:: \log \frac{1}{SK} \sum_{s=1}^S \sum_{k=1}^K \frac{p(x, z_{sk} \mid w_s)}{q(z_{sk} \mid x)},
                  \qquad w_s \sim q(w), \quad z_{sk} \sim q(z \mid x)

        In expectation it is below the log of the average of p(x | w) over q(w), and rises to it with S and K.

        Args:
            x: Integers of shape ``(B, *shape)``.
            draws: Number S of networks.
            particles: Number K of latent vectors for each of them.

        Returns:
            Nats, shape ``(B,)``.

        Raises:
            ValueError: If a number is below 1, or x is not integer or has another shape.
        """
        if draws < 1:
            raise ValueError(f"BayesianVAE.log_predictive got draws={draws}: at least one is needed.")
        values = []
        for vae in (self.draw() for _ in range(draws)):
            with local_parameters(vae.model, vae.guide):  # each network is its own, though they have one name
                pair = without_statements(vae.model), without_statements(vae.guide)
                values.append(log_weights(*pair, x, particles=particles).log_w.logsumexp(0))
        return torch.stack(values).logsumexp(0) - math.log(draws * particles)
