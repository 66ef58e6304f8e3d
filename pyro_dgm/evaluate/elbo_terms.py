# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The negative ELBO splits into what reconstructing the data costs and what each latent variable costs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS, weigh
from pyro_dgm.infer.log_weights import LogWeights


@dataclass(frozen=True, eq=False)
class ElboTerms:
    """The negative ELBO and its parts, all in nats per datum, lower is better.

    Attributes:
        negative_elbo: -ELBO; for every datum it is ``reconstruction`` plus all of ``kl``.
        reconstruction: -E log p(x | z), summed over the observed sites.
        kl: For each latent site E[log q - log p], its KL term; the sites' conditionals if they form a hierarchy.
    """

    negative_elbo: Estimate
    reconstruction: Estimate
    kl: dict[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """List the parts for a JSON file."""
        return {
            "negative_elbo": self.negative_elbo.as_dict(),
            "reconstruction": self.reconstruction.as_dict(),
            "kl": {site: term.as_dict() for site, term in self.kl.items()},
        }

    def __str__(self) -> str:
        """Print one line for each number, the whole first; without latent variables the whole is all."""
        parts = [self.reconstruction, *self.kl.values()] if self.kl else []
        return "\n".join(map(str, [self.negative_elbo, *parts]))


def elbo_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    num_samples: int = 1,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> ElboTerms:
    r"""Estimate the negative ELBO and its parts by Monte Carlo.

    .. math:: -\mathcal{L}(x) = -\mathbb{E}_q \log p(x \mid z)
              + \sum_s \mathbb{E}_q [\log q(z_s \mid \cdot) - \log p(z_s \mid \cdot)]

    No term is analytic, so that the split is the same for every prior and posterior (flows have no closed form). A
    sampled KL can be negative for a single datum; its mean is unbiased. Always at beta = 1.

    Args:
        model: A Pyro program with a data plate, called as ``model(x)``.
        guide: Its guide, called as ``guide(x)``.
        x: Data of shape ``(N, *event)``, on the model's device.
        num_samples: Particles for each datum. One is what published tables use: the average over data does the rest.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the particles.
        batch_size: Largest number of data at once.
        max_elements: Memory bound, as in `log_likelihood`.

    Returns:
        `ElboTerms`. Terms of the model that are neither in the guide nor latent count as reconstruction; an auxiliary
        variable of the guide is a KL term of its own.

    Raises:
        ValueError: If x is empty, a number is out of range, or the pair has no data plate.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, eq. 3.
    """
    terms = weigh(
        model,
        guide,
        x,
        _mean_terms,
        num_samples=num_samples,
        num_data=num_data,
        seed=seed,
        batch_size=batch_size,
        max_elements=max_elements,
    )
    reconstruction = terms.pop("")
    estimate = partial(
        Estimate,
        method=f"MC, {num_samples} sample{'s' * (num_samples != 1)}" if terms else "exact",
        noun="image" if x.dim() >= 3 else "datum",
        density=x.is_floating_point(),
    )
    return ElboTerms(
        estimate("-ELBO =", sum(terms.values(), start=reconstruction)),
        estimate("reconstruction =", reconstruction),
        {site: estimate(f"KL({site}) =", term) for site, term in terms.items()},
    )


def _mean_terms(chunks: Iterator[LogWeights]) -> dict[str, Tensor]:
    """Average the costs of one batch over its particles; the key of the reconstruction is the empty string."""
    totals: dict[str, Tensor] = {}
    count = 0
    for chunk in chunks:
        count += len(chunk.log_w)
        for site, cost in _costs(chunk).items():
            totals[site] = totals.get(site, 0.0) + cost.double().sum(0)
    return {site: total / count for site, total in totals.items()}


def _costs(weights: LogWeights) -> dict[str, Tensor]:
    """Sort the terms of the log-weights by site, as costs of shape ``(K, B)``."""
    observed = [term for site, term in weights.model_terms.items() if site not in weights.latent]
    zero = weights.log_w.new_zeros(())
    costs = {"": -sum(observed, start=zero).expand_as(weights.log_w)}
    for site in [*weights.guide_terms, *(weights.latent - weights.guide_terms.keys())]:
        costs[site] = weights.guide_terms.get(site, zero) - weights.model_terms.get(site, zero)
    return costs
