# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A posterior has collapsed where it is the prior whatever the datum is: such a unit tells nothing about the data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from pyro_dgm.evaluate.elementwise import by_dimension, elementwise
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.weigh import BATCH_SIZE
from pyro_dgm.infer.particles import particle_traces, sample_sites


@dataclass(frozen=True, eq=False)
class Collapse:
    """How far the posterior of each unit is from its prior, for each datum.

    Attributes:
        kl: For each latent site KL(q(z_j | x_n) || p(z_j)) in nats, shape ``(N, L)``; ``(N, 1)`` for the whole site
            where posterior or prior does not fall into dimensions.
        whole: The sites whose one column is the whole site.
        epsilon: A posterior counts as collapsed on a datum if its KL is below this, in nats.
        delta: A unit counts as collapsed if its posterior is on all data but this share.
        informative_above: A unit counts as informative if its mean KL is above this, in nats.
        method: How the KL terms were computed.
        noun: What one datum is called: ``"image"`` or ``"datum"``.
    """

    kl: dict[str, Tensor]
    whole: frozenset[str]
    epsilon: float | int
    delta: float | int
    informative_above: float | int
    method: str
    noun: str = "datum"

    @property
    def mean_kl(self) -> dict[str, Tensor]:
        """The mean KL of each unit over the data, shape ``(L,)``."""
        return {site: kl.mean(0) for site, kl in self.kl.items()}

    @property
    def collapsed(self) -> dict[str, Tensor]:
        """Whether each unit has (epsilon, delta)-collapsed, booleans of shape ``(L,)``."""
        shares = {site: (kl < self.epsilon).double().mean(0) for site, kl in self.kl.items()}
        return {site: share >= 1 - self.delta for site, share in shares.items()}

    @property
    def informative(self) -> dict[str, int]:
        """Number of units of each site whose mean KL is above the threshold."""
        return {site: int((kl > self.informative_above).sum()) for site, kl in self.mean_kl.items()}

    @property
    def fraction(self) -> float:
        """The share of all units that have collapsed."""
        return float(torch.cat(list(self.collapsed.values())).double().mean())

    def as_dict(self) -> dict[str, Any]:
        """List the summary for a JSON file."""
        sites = {
            site: {
                "units": len(mean),
                "collapsed": int(self.collapsed[site].sum()),
                "informative": self.informative[site],
                "mean_kl": [round(kl, 6) if math.isfinite(kl) else None for kl in mean.tolist()],
                "whole_site": site in self.whole,
            }
            for site, mean in self.mean_kl.items()
        }
        thresholds = {"epsilon": self.epsilon, "delta": self.delta, "informative_above": self.informative_above}
        return {"fraction_collapsed": self.fraction, "sites": sites, **thresholds, "method": self.method}

    def __str__(self) -> str:
        """Print two lines for each site: how many units have collapsed, and the KL of each, largest first."""
        return "\n".join(line for site in self.kl for line in self._lines(site))

    def _lines(self, site: str) -> list[str]:
        mean, size = self.mean_kl[site].sort(descending=True).values, len(self.mean_kl[site])
        units = "the whole site as one unit" if site in self.whole else f"{size} unit{'s' * (size != 1)}"
        count = len(self.kl[site])
        noun = self.noun if count == 1 else {"datum": "data"}.get(self.noun, f"{self.noun}s")
        shown = ", ".join(f"{kl:.3g}" for kl in mean[:10].tolist()) + ", ..." * (size > 10)
        return [
            f"collapse of {site}: {int(self.collapsed[site].sum())} of {units} "
            f"(KL < {self.epsilon:g} on all but {self.delta:.0%} of {count} {noun}), {self.informative[site]} "
            f"informative (mean KL > {self.informative_above:g})",
            f"KL by unit of {site}: {shown} nats ({self.method})",
        ]


def collapse(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    epsilon: float | int = 0.01,
    delta: float | int = 0.01,
    informative_above: float | int = 0.01,
    num_samples: int = 100,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Collapse:
    r"""Count the units whose posterior is their prior.

    .. math:: \Pr_x\big[ \mathrm{KL}(q(z_j \mid x) \,\|\, p(z_j)) < \epsilon \big] \ge 1 - \delta

    Closed forms are taken where torch has them for posterior and prior; else a KL is a mean over samples, whose noise
    can hide a collapse: then raise ``epsilon`` or the number of samples. In a hierarchy a unit's KL is that of
    its conditionals, averaged over samples of what it depends on.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``.
        epsilon: Largest KL of a collapsed posterior, in nats; the paper varies it from 0 to a few.
        delta: Share of data on which a collapsed unit may be alive; 0.01 is the paper's.
        informative_above: Smallest mean KL of an informative unit, in nats.
        num_samples: Samples of what has no closed form.
        num_data: Size of a random subset; ``None`` is all.
        seed: Seed of the subset and of the samples.
        batch_size: Largest number of data at once.

    Returns:
        `Collapse`.

    Raises:
        ValueError: If x is empty, nothing is latent, or a number is out of range.

    Source: Lucas, Tucker, Grosse & Norouzi (NeurIPS 2019), arXiv:1911.02469, (epsilon, delta)-collapse.
    """
    if num_samples < 1 or epsilon < 0 or not 0 <= delta < 1:
        raise ValueError(
            f"collapse got num_samples={num_samples}, epsilon={epsilon}, delta={delta}: at least one sample, a KL "
            f"of at least 0 and a share of at least 0 and below 1 are needed."
        )
    index = random_subset(len(x), num_data, seed=seed)
    with frozen(model, guide, seed=seed, device=x.device):
        found = _of_batch(model, guide, x[:1])
        exact = all(term.exact for term in found.values())
        runs = 1 if exact and len(found) == 1 else num_samples
        parts = []
        for part in index.split(batch_size):
            batch = x[part.to(x.device)]
            each = [{site: term.kl for site, term in _of_batch(model, guide, batch).items()} for _ in range(runs)]
            parts.append({site: torch.stack([one[site] for one in each]).mean(0) for site in each[0]})
    return Collapse(
        {site: torch.cat([part[site].cpu() for part in parts]) for site in found},
        frozenset(site for site, term in found.items() if term.whole),
        epsilon,
        delta,
        informative_above,
        method="closed form" if runs == 1 else f"{'closed form' if exact else 'MC'}, {runs} samples",
        noun="image" if x.dim() >= 3 else "datum",
    )


@dataclass(frozen=True, eq=False)
class _Term:
    """The KL of one site's units, shape ``(B, L)``; whether by a closed form; and whether of the whole site."""

    kl: Tensor
    exact: bool
    whole: bool


def _of_batch(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> dict[str, _Term]:
    """Compute the KL terms of a batch, those without a closed form from one sample."""
    model_trace, guide_trace, _ = particle_traces(model, guide, (x,), {}, particles=1)
    posterior = sample_sites(guide_trace)
    latent = {name: site for name, site in sample_sites(model_trace).items() if not site["is_observed"]}
    if not latent:
        raise ValueError("The model has no latent variable, so nothing can collapse.")
    return {name: _term(posterior[name]["fn"], site["fn"], site["value"], len(x)) for name, site in latent.items()}


def _term(q: Distribution, p: Distribution, z: Tensor, size: int) -> _Term:
    single_q, single_p = elementwise(q), elementwise(p)
    whole = single_q is None or single_p is None
    if single_q is not None and single_p is not None:
        q, p = single_q, single_p
    try:
        kl, exact = kl_divergence(q, p), True
    except NotImplementedError:
        kl, exact = q.log_prob(z) - p.log_prob(z), False
    kl = kl.double()
    if whole and kl.dim() > 1:  # further plates belong to the site
        kl = kl.flatten(1).sum(-1)
    return _Term(by_dimension(kl, 1).expand(size, -1), exact, whole)
