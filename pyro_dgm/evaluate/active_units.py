# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A latent unit is active if what the encoder says about it changes from datum to datum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.posterior_means import is_label, posterior_means
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.infer.particles import sample_sites


@dataclass(frozen=True, eq=False)
class ActiveUnits:
    """How many units of each latent site are used.

    Attributes:
        variances: For each site the variance over data of the posterior mean, one value for each unit, shape ``(L,)``.
        threshold: A unit is active if its variance exceeds this.
        num_data: Over how many data.
        noun: What one datum is called: ``"image"`` or ``"datum"``.
        labels: The sites that have no units, for their values are numbers of categories (a mixture's components).
    """

    variances: dict[str, Tensor]
    threshold: float | int
    num_data: int
    noun: str = "datum"
    labels: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Number of active units of each site."""
        return {site: int((variance > self.threshold).sum()) for site, variance in self.variances.items()}

    def as_dict(self) -> dict[str, Any]:
        """List the summary for a JSON file."""
        sizes = {site: variance.numel() for site, variance in self.variances.items()}
        found = {"counts": self.counts, "units": sizes, "threshold": self.threshold, "num_data": self.num_data}
        return {**found, "labels": list(self.labels)} if self.labels else found

    def __str__(self) -> str:
        """Print one line for each site, as in ``active units of z: 19 of 50 (Var > 0.01, 500 images)``."""
        noun = {"datum": "data"}.get(self.noun, f"{self.noun}s")
        lines = [
            f"active units of {site}: {count} of {self.variances[site].numel()} "
            f"(Var > {self.threshold:g}, {self.num_data} {noun})"
            for site, count in self.counts.items()
        ]
        none = [f"active units of {site}: none to count, for it is the number of a category" for site in self.labels]
        return "\n".join([*lines, *none])


def active_units(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    threshold: float | int = 0.01,
    num_samples: int = 100,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = 100,
) -> ActiveUnits:
    r"""Count the latent units whose posterior mean varies over the data.

    .. math:: A_u = \mathrm{Var}_x\big( \mathbb{E}_{q(u \mid x)}[u] \big) > 0.01

    A site that depends on another latent site gets one sample of it, as in the paper. A site whose values are numbers
    of categories (`pyro.distributions.Categorical`) has no mean, so no units; one-hot vectors have both.

    Args:
        model: A Pyro program with a data plate; it says which sites of the guide are latent variables.
        guide: Its guide.
        x: Data of shape ``(N, *event)``. The paper takes 500 training images.
        threshold: Smallest variance of an active unit; 0.01 is the paper's, and the variances it finds lie far
            to either side.
        num_samples: Samples that estimate a posterior mean that has no closed form (a flow's). They
            add at most ``Var / num_samples`` to the variance: keep that well under the threshold.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the samples.
        batch_size: Largest number of data at once.

    Returns:
        `ActiveUnits`; ``.counts["z"]`` is the number of active units of site ``z``.

    Raises:
        ValueError: If there are fewer than two data, or no site of the guide is a site of the model.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, section 5.2 (variance over data, unbiased).
    """
    index = random_subset(len(x), num_data, seed=seed)
    if len(index) < 2:
        raise ValueError("active_units got a single datum: the variance over data needs at least two.")
    with frozen(model, guide, seed=seed, device=x.device):
        batches = [x[part.to(x.device)] for part in index.split(batch_size)]
        latent = _latent_sites(model, batches[0][:1])
        means = [posterior_means(guide, batch, num_samples=num_samples, skip_labels=True) for batch in batches]
        sites = sample_sites(poutine.trace(guide).get_trace(batches[0][:1]))
    if latent.isdisjoint(sites):
        raise ValueError(
            f"The model has the latent sites {sorted(latent)} and the guide has {sorted(sites)}: none is in both."
        )
    variances = {
        site: torch.cat([part[site].double().cpu() for part in means]).reshape(len(index), -1).var(0)
        for site in means[0]
        if site in latent
    }
    labels = tuple(name for name, site in sites.items() if name in latent and is_label(site["fn"]))
    return ActiveUnits(variances, threshold, len(index), "image" if x.dim() >= 3 else "datum", labels)


def _latent_sites(model: Callable[..., Any], x: Tensor) -> set[str]:
    """Name the model's latent variables; a guide may have auxiliary ones besides, which are no units."""
    sites = sample_sites(poutine.trace(model).get_trace(x))
    return {name for name, site in sites.items() if not site["is_observed"]}
