# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mixture of coin flips for black-and-white pictures: K grey pictures, of which each datum is a noisy print."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.distributions import Bernoulli
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.models.k_means import KMeans
from pyro_dgm.models.mixture import Mixture, shares
from pyro_dgm.models.normal_densities import working_dtype
from pyro_dgm.nn.being_captured import being_captured
from pyro_dgm.nn.full_precision import full_precision

BOUND = 36.0  # of log-odds: a probability of 2e-16 is zero beside 1 in float64, and its log is finite


class BernoulliMixture(Mixture):
    r"""K pictures of probabilities, with EM in closed form.

    .. math:: p(x) = \sum_k \pi_k \prod_j \theta_{kj}^{x_j} (1 - \theta_{kj})^{1 - x_j}, \qquad
              \theta_{kj} \sim \text{Beta}(a, b)

    The M-step counts: theta = (ones + a - 1) / (data + a + b - 2), each datum by its share in the component. A
    component without data becomes the prior's mode (under the uniform prior it stays as it is). Log-odds are kept
    within -36 and 36, so theta is never 0 or 1: a pixel that the data call impossible costs 36 nats.

    The Pyro programs are the likelihood alone: only EM sees the prior. For SVI add ``-log_prior()`` to the loss.

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)``.
        components: K.
        prior: a and b, at least 1. (1, 1) is uniform, as if there were none: EM seeks the highest likelihood. (2, 2)
            counts one more of each, which helps where a pixel is never on in a component, but is in data to come.

    Attributes:
        log_odds: Of a one, shape ``(K, *shape)``, at most 36 in size.

    Raises:
        ValueError: If a size is not positive, or a or b is below 1; at data other than integers 0 and 1 (on a GPU,
            their values are looked at by `statistics` and `start` only, for the host waits for it).

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 9.3.3.

    >>> from pyro_dgm.infer import em
    >>> x = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]).repeat(9, 1)
    >>> model = BernoulliMixture(shape=(8,), components=2, prior=(2, 2))
    >>> history = em(model, x)
    >>> model.probs.detach().sort(0).values[1]  # nine ones and one more of each: 10 / 11
    tensor([0.9091, 0.9091, 0.9091, 0.9091, 0.9091, 0.9091, 0.9091, 0.9091])
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        components: int,
        prior: tuple[int | float, int | float] = (1, 1),
    ) -> None:
        super().__init__(components=components)
        if not shape or min(shape) < 1 or min(prior) < 1:
            raise ValueError(
                f"BernoulliMixture got shape={tuple(shape)}, prior={prior}: sizes must be positive, and a and b at "
                f"least 1, or probabilities have no mode."
            )
        self.shape, self.prior = tuple(shape), prior
        self.log_odds = nn.Parameter(torch.randn(components, *shape))

    @property
    def probs(self) -> Tensor:
        """The pictures: probabilities of a one, shape ``(K, *shape)``."""
        return self.log_odds.sigmoid()

    def check(self, x: Tensor) -> None:
        """Refuse x if it is not integer of shape ``(B, *shape)``, or not 0 and 1 (this not on a GPU)."""
        check_integers(self, x, shape=self.shape, levels=2)
        if x.device.type == "cpu" and not being_captured():
            self._check_values(x)

    def _check_values(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        least, most = (int(value) for value in x.aminmax())
        if least < 0 or most > 1:
            raise ValueError(
                f"BernoulliMixture got integers from {least} to {most}: it needs 0 and 1. A data set gives them with "
                f"binarization='static' or 'dynamic'."
            )

    def component(self, z: Tensor) -> Distribution:
        """Give the coins of component numbers z of any shape."""
        return Bernoulli(logits=self.log_odds[z]).to_event(len(self.shape))

    @full_precision
    def log_joint(self, x: Tensor) -> Tensor:
        """Give log p(x, z = k) in nats, shape ``(B, K)``, of integers ``(B, *shape)``."""
        self.check(x)
        return self._log_joint(x.flatten(1).to(self.log_odds.dtype))

    def _log_joint(self, ones: Tensor) -> Tensor:
        log_odds = self.log_odds.flatten(1).to(ones)
        constant = self._log_weights(ones.dtype) - nn.functional.softplus(log_odds).sum(1)
        return torch.addmm(constant, ones, log_odds.mT)

    @torch.no_grad()
    @full_precision
    def statistics(self, x: Tensor) -> dict[str, Tensor]:
        """E-step: sum what the M-step needs, all float64.

        Args:
            x: Integers, shape ``(B, *shape)``.

        Returns:
            ``count`` and ``log_likelihood``, 0-dim; ``mass``, ``(K,)``, the sum of each component's shares in the data;
            ``first``, ``(K, *shape)``, the sum of the data.
        """
        check_integers(self, x, shape=self.shape, levels=2)
        self._check_values(x)
        dtype = working_dtype(self.log_odds.dtype)
        rows = max(64, (2**18 if x.device.type == "cpu" else 2**26) // (math.prod(self.shape) + self.components))
        total: dict[str, Tensor] = {}
        for block in x.flatten(1).split(rows):
            ones = block.to(dtype)  # (b, P)
            weight, log_p = shares(self._log_joint(ones), 1)  # (b, K)
            found = {"mass": weight.sum(0).double(), "first": (weight.mT @ ones).double().unflatten(1, self.shape)}
            found["log_likelihood"] = log_p.sum(dtype=torch.float64)
            total = {name: total[name] + value for name, value in found.items()} if total else found
        return {"count": total["mass"].new_tensor(float(len(x))), **total}

    @torch.no_grad()
    def maximize(self, statistics: dict[str, Tensor]) -> None:
        """M-step: set weights and probabilities.

        Args:
            statistics: What `statistics` gave, summed over all data, or their average scaled to so many data.
        """
        (a, b), mass = self.prior, statistics["mass"]
        ones = statistics["first"].flatten(1)
        zeros = mass[:, None] - ones
        log_odds = (ones.clamp_min(0) + (a - 1)).log() - (zeros.clamp_min(0) + (b - 1)).log()
        empty = mass[:, None] + (a + b - 2) <= 10 * torch.finfo(torch.float64).eps * statistics["count"]
        log_odds = torch.where(empty, self.log_odds.flatten(1).double(), log_odds.clamp(-BOUND, BOUND))
        self.set_weights(mass)
        self.log_odds.copy_(log_odds.unflatten(1, self.shape))

    @torch.no_grad()
    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Start from k-means: the means of its clusters, each with one grey datum more, and equal weights.

        Args:
            x: Integers, shape ``(N, *shape)``.
            seed: Seed of k-means++; five sweeps of `KMeans` follow.

        Raises:
            ValueError: If there are no data, or other integers than 0 and 1 among them.
        """
        check_integers(self, x, shape=self.shape, levels=2)
        self._check_values(x)
        ones = x.flatten(1).to(self.log_odds.dtype)
        clusters = KMeans(dim=ones.shape[1], components=self.components, variance=0).to(ones)
        clusters.start(ones, seed=seed)
        for _ in range(5):
            clusters.maximize(clusters.statistics(ones))
        found = clusters.statistics(ones)
        mass = found["mass"][:, None]
        grey = 0.5 * clusters.center + 0.25  # between the mean picture and one half
        probs = (found["first"] + mass * clusters.center + grey) / (mass + 1)
        self.logits.zero_()
        self.log_odds.copy_(probs.logit().clamp(-BOUND, BOUND).unflatten(1, self.shape))

    def log_prior(self) -> Tensor:
        """Log-density of the prior of all probabilities in nats, 0-dim."""
        a, b = self.prior
        log_one, log_zero = nn.functional.logsigmoid(self.log_odds), nn.functional.logsigmoid(-self.log_odds)
        constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        return ((a - 1) * log_one + (b - 1) * log_zero + constant).sum()

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"shape={self.shape}, components={self.components}, prior={self.prior}"
