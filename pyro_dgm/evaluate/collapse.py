# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A posterior has collapsed where it is the prior whatever the datum is: such a unit tells nothing about the data."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.by_dimension import by_dimension
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.weigh import BATCH_SIZE
from pyro_dgm.infer.kl_terms import kl_terms, sum_terms
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.particles import sample_sites

# A posterior mean whose variance over the data is larger varies, as in `active_units`.
_ACTIVE = 0.01


@dataclass(frozen=True, eq=False)
class Collapse:
    """How far the posterior of each unit is from its prior, for each datum.

    Attributes:
        kl: For each latent site KL(q(z_j | x_n) || p(z_j)) in nats, shape ``(N, L)``; ``(N, 1)`` for the whole site
            where posterior or prior does not fall into dimensions. Sites that the guide samples in another order than
            the model are one entry, ``"z2, z1"``, with their joint KL, shape ``(N, 1)``.
        whole: The entries whose one column is the whole site, or several.
        epsilon: A posterior counts as collapsed on a datum if its KL is below this, in nats.
        delta: A unit counts as collapsed if its posterior is on all data but this share.
        informative_above: A unit counts as informative if its mean KL is above this, in nats.
        method: How the KL terms were computed.
        noun: What one datum is called: ``"image"`` or ``"datum"``.
        mean_variance: For each site that shares an entry with others, and has a mean, the variance over data of each
            unit's posterior mean, shape ``(L,)``. It is 0 but for noise, which can make it negative, if they have
            collapsed.
    """

    kl: dict[str, Tensor]
    whole: frozenset[str]
    epsilon: float | int
    delta: float | int
    informative_above: float | int
    method: str
    noun: str = "datum"
    mean_variance: dict[str, Tensor] = field(default_factory=dict)

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
        varying = {
            site: {"units": len(variance), "varying": int((variance > _ACTIVE).sum())}
            for site, variance in self.mean_variance.items()
        }
        return {
            "fraction_collapsed": self.fraction,
            "sites": sites,
            "posterior_means": varying,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "informative_above": self.informative_above,
            "method": self.method,
        }

    def __str__(self) -> str:
        """Print two lines for each site: how many units have collapsed, and the KL of each, largest first."""
        means = [
            f"units of {site} whose posterior mean varies: {int((variance > _ACTIVE).sum())} of {len(variance)} "
            f"(Var > {_ACTIVE:g})"
            for site, variance in self.mean_variance.items()
        ]
        return "\n".join([*(line for site in self.kl for line in self._lines(site)), *means])

    def _lines(self, site: str) -> list[str]:
        mean, size = self.mean_kl[site].sort(descending=True).values, len(self.mean_kl[site])
        units = f"{size} unit{'s' * (size != 1)}"
        if site in self.whole:
            units = "the sites together as one unit" if ", " in site else "the whole site as one unit"
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
    can hide a collapse: then raise ``epsilon`` or the number of samples. What `poutine.mask` takes out costs nothing.

    In a hierarchy a unit's KL is that of its conditionals, averaged over samples of what it depends on, if the guide
    samples the sites in the model's order. A guide that climbs, as that of `HierarchicalVAE`, does not: it conditions
    z_1 on x alone and the model on z_2, so that the sites' own terms are no KL and do not vanish where
    q(z_1, z_2 | x) is the prior. Such sites are one unit, by their joint KL,

    .. math:: \mathbb{E}_q[\log q(z_1 \mid x) + \log q(z_2 \mid z_1) - \log p(z_2) - \log p(z_1 \mid z_2)],

    and beside it stands how many units of each have a posterior mean that varies over the data (the samples' noise
    taken off), which none does after a collapse. Variables that only the guide has count with the sites.

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
        if all(site["is_observed"] for site in sample_sites(poutine.trace(model).get_trace(x[:1])).values()):
            raise ValueError("The model has no latent variable, so nothing can collapse.")
        found = _of_batch(model, guide, x[:1])
        exact = all(term.exact for term in found.values())
        runs = 1 if exact and len(found) == 1 else num_samples
        parts = [_averaged(model, guide, x[part.to(x.device)], runs) for part in index.split(batch_size)]
    samples = f"{runs} sample{'s' * (runs != 1)}"
    return Collapse(
        {site: torch.cat([kl[site] for kl, _, _ in parts]) for site in found},
        frozenset(site for site, term in found.items() if term.whole),
        epsilon,
        delta,
        informative_above,
        method="closed form" if exact and runs == 1 else f"{'closed form' if exact else 'MC'}, {samples}",
        noun="image" if x.dim() >= 3 else "datum",
        mean_variance=_variances([(means, noise) for _, means, noise in parts]) if runs > 1 < len(index) else {},
    )


@dataclass(frozen=True, eq=False)
class _Term:
    """The KL of some units, shape ``(B, L)``; whether by a closed form; whether of one or more sites as a whole.

    ``means`` are the posterior means of sites that have no KL of their own, given samples of what they depend on.
    """

    kl: Tensor
    exact: bool
    whole: bool
    means: dict[str, Tensor]


Named = dict[str, Tensor]


def _averaged(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, runs: int) -> tuple[Named, Named, Named]:
    """Average KL terms and posterior means over runs; the third are the variances of those averages of means."""
    each = [_of_batch(model, guide, x) for _ in range(runs)]
    kl = {name: torch.stack([one[name].kl for one in each]).mean(0).cpu() for name in each[0]}
    means = {
        site: torch.stack([one[name].means[site] for one in each]).cpu()
        for name, term in each[0].items()
        for site in term.means
    }
    noise = {site: mean.var(0) / runs for site, mean in means.items()} if runs > 1 else {}
    return kl, {site: mean.mean(0) for site, mean in means.items()}, noise


def _variances(parts: list[tuple[Named, Named]]) -> Named:
    """Compute the variance over data of posterior means, without what the noise of each mean adds to it."""
    return {
        site: torch.cat([means[site] for means, _ in parts]).var(0) - torch.cat([n[site] for _, n in parts]).mean(0)
        for site in parts[0][0]
    }


def _of_batch(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> dict[str, _Term]:
    """Compute the KL terms of a batch, those without a closed form from one sample."""
    weights = log_weights(model, guide, x)
    for name in weights.sites:
        if (shape := weights.guide_terms[name].shape)[:2] != (1, len(x)):
            raise ValueError(
                f"Site {name!r} has terms of shape {tuple(shape[1:])} for {len(x)} data: one for each datum is needed. "
                f"Every latent variable belongs inside pyro.plate('data', len(x))."
            )
    auxiliary = [name for name in weights.guide_terms if name not in weights.model_terms]
    blocks = [list(weights.sites)] if auxiliary else _blocks(weights)
    return {", ".join(block): _term(weights, block, auxiliary, len(x)) for block in blocks}


def _blocks(weights: LogWeights) -> list[list[str]]:
    """Cut the model's order of sites wherever the guide has sampled the same ones by then: each block has a KL."""
    turns = {name: turn for turn, name in enumerate(name for name in weights.guide_terms if name in weights.latent)}
    blocks, block, last = list[list[str]](), list[str](), 0
    for place, name in enumerate(weights.sites):
        block, last = [*block, name], max(last, turns[name])
        if last == place:
            blocks, block = [*blocks, block], []
    return blocks


def _term(weights: LogWeights, block: list[str], auxiliary: list[str], size: int) -> _Term:
    """Compute the KL of one site by its units, of one as a whole, or of several together."""
    site, alone = weights.sites[block[0]], len(block) == 1 and not auxiliary
    units = site.by_dimension(analytic=True) if alone else None
    if units is not None:
        kl = units
    elif alone:
        kl = kl_terms(weights, analytic=True)[block[0]]
    else:
        kl = sum_terms({name: term for name, term in kl_terms(weights).items() if name in {*block, *auxiliary}})
    kl = kl[0].double()
    if units is None and kl.dim() > 1:  # further plates belong to the site
        kl = kl.flatten(1).sum(-1)
    means = {} if len(block) == 1 else {name: _mean(weights.sites[name].posterior, size) for name in block}
    return _Term(
        by_dimension(kl, 1),
        exact=alone and site.closed_form() is not None,
        whole=units is None,
        means={name: mean for name, mean in means.items() if mean is not None},
    )


def _mean(site: Any, size: int) -> Tensor | None:
    """Give a posterior mean, shape ``(B, L)``, or a sample of it where it is not known (a flow's).

    It is ``None`` where there is none, as of a categorical variable.
    """
    try:
        mean: Tensor = site["fn"].mean
    except NotImplementedError:  # how torch says that a distribution has no known mean
        mean = site["value"]
    if mean.isnan().any() or mean.dim() < 1 or len(mean) != size:
        return None
    return mean.double().reshape(size, -1)
