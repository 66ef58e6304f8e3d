# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Codes are posterior samples of the data, kept together with how prior and posterior score them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_dgm.evaluate.by_dimension import by_dimension
from pyro_dgm.infer.latent_site import elementwise
from pyro_dgm.infer.particles import particle_traces, sample_sites


@dataclass(frozen=True)
class LatentCodes:
    """One code for each of N data.

    Attributes:
        values: For each latent site its values, shape ``(N, *plates, *event)``.
        log_q: log q(z_n | x_n) in nats, shape ``(N,)``, float64.
        log_p: log p(z_n), likewise.
        log_p_by_dimension: log p(z_nj), shape ``(N, L)``, where a single site has a prior of independent dimensions.
        factorised: Whether a single site has a posterior of independent dimensions.
        present: Which data have a code at all, booleans of shape ``(N,)``: `pyro.poutine.mask` can take it out.
    """

    values: dict[str, Tensor]
    log_q: Tensor
    log_p: Tensor
    log_p_by_dimension: Tensor | None
    factorised: bool
    present: Tensor

    def __getitem__(self, index: Tensor) -> "LatentCodes":
        """Take the codes of some data."""
        prior = None if self.log_p_by_dimension is None else self.log_p_by_dimension[index]
        values = {site: value[index.to(value.device)] for site, value in self.values.items()}
        return LatentCodes(values, self.log_q[index], self.log_p[index], prior, self.factorised, self.present[index])


def draw_codes(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *, batch_size: int) -> LatentCodes:
    """Draw one code for each datum; run it inside `frozen`.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``.
        batch_size: Largest number of data at once.

    Returns:
        `LatentCodes` of the N data.

    Raises:
        ValueError: If nothing is latent, the guide has an auxiliary variable, a site is not one value per datum, or a
            mask takes out a part of a datum's code.
    """
    parts = [_draw(model, guide, batch) for batch in x.split(batch_size)]
    priors = [part.log_p_by_dimension for part in parts]
    known = [prior for prior in priors if prior is not None]
    return LatentCodes(
        {site: torch.cat([part.values[site] for part in parts]) for site in parts[0].values},
        torch.cat([part.log_q for part in parts]),
        torch.cat([part.log_p for part in parts]),
        torch.cat(known) if len(known) == len(parts) else None,
        parts[0].factorised,
        torch.cat([part.present for part in parts]),
    )


def _draw(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> LatentCodes:
    model_trace, guide_trace, _ = particle_traces(model, guide, (x,), {}, particles=1)
    in_guide = sample_sites(guide_trace)
    latent = {name: site for name, site in sample_sites(model_trace).items() if not site["is_observed"]}
    if not latent:
        raise ValueError("The model has no latent variable, so there are no codes to look at.")
    if auxiliary := sorted(in_guide.keys() - latent.keys()):
        raise ValueError(
            f"The guide has the auxiliary variables {auxiliary} besides the model's {sorted(latent)}: q(z | x) is then "
            f"an integral over them that is not known. Give a guide without them."
        )
    values = {name: site["value"] for name, site in latent.items()}
    for name, value in values.items():
        if value.dim() < 1 or len(value) != len(x):
            raise ValueError(
                f"Site {name!r} has a value of shape {tuple(value.shape)} for {len(x)} data: it needs one row for each "
                f"datum. Put it inside pyro.plate('data', len(x)), the outermost plate."
            )
    single = list(latent) if len(latent) == 1 else []
    priors = [(elementwise(latent[name]["fn"]), values[name]) for name in single]
    scored = [by_dimension(prior.log_prob(z), 1).double().cpu() for prior, z in priors if prior is not None]
    return LatentCodes(
        values,
        _rows(in_guide, len(x)),
        _rows(latent, len(x)),
        scored[0] if scored else None,
        any(elementwise(in_guide[name]["fn"]) is not None for name in single),
        _present([*in_guide.values(), *latent.values()], len(x)),
    )


def _present(sites: list[Any], size: int) -> Tensor:
    """Say which data have a code: masks must take out all of it or nothing."""
    masks = [torch.as_tensor(True if site["mask"] is None else site["mask"]).cpu() for site in sites]
    shapes = [site["unscaled_log_prob"].shape for site in sites]
    kept = [mask.expand(shape).reshape(size, -1) for mask, shape in zip(masks, shapes, strict=True)]
    present = torch.cat(kept, 1).all(1)
    if (torch.cat(kept, 1).any(1) != present).any() or not present.any():
        raise ValueError(
            "A mask (poutine.mask) takes out a part of the latent variables of a datum, or those of all data: there "
            "is then no density of a whole code. Mask the data by themselves, or leave such data out."
        )
    return present


def _rows(sites: dict[str, Any], size: int) -> Tensor:
    """Sum the log-probabilities of all sites to one number for each datum."""
    rows = torch.zeros(size, dtype=torch.float64)
    for site in sites.values():
        term = scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"]).double().cpu()
        rows = rows + (term.flatten(1).sum(-1) if term.dim() > 1 else term)
    return rows
