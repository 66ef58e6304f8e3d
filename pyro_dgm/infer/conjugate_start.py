# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Each site of a model gets a factor of its prior's family to start a mean-field posterior with."""

from typing import Any

import torch
from torch import Tensor

from pyro_dgm.infer.conjugate_factor import EnumeratedFactor, Factor, stripped
from pyro_dgm.infer.conjugate_gamma import GammaFactor
from pyro_dgm.infer.conjugate_normal import NormalFactor, VectorFactor
from pyro_dgm.infer.conjugate_simplex import BetaFactor, DirichletFactor

FAMILIES = ("Normal", "MultivariateNormal", "Gamma", "Exponential", "Beta", "Dirichlet", "Categorical", "Bernoulli")


def start_factor(name: str, site: Any, generator: torch.Generator) -> Factor:
    """Make the factor of a site from a run of the model.

    Normal factors start at the run's draw and discrete ones at random, so that no two components are alike; the others
    at the prior, but no broader than a shape of 1.

    Args:
        name: The site's name, for messages.
        site: The site in the run's trace.
        generator: Draws the discrete starts.

    Returns:
        The factor.

    Raises:
        ValueError: If the prior's family has no factor.
    """
    fn, value, event_dim = site["fn"], site["value"].detach(), site["fn"].event_dim
    prior: Any = stripped(fn)
    kind = type(prior).__name__
    if kind in {"Categorical", "Bernoulli"} and event_dim == 0:
        return EnumeratedFactor(fn, generator)
    if kind == "Normal" and event_dim == 0:
        return NormalFactor(value, fn.stddev.detach())
    if kind in {"Normal", "MultivariateNormal"}:
        return VectorFactor(value, fn.stddev.detach().flatten(value.dim() - event_dim).diag_embed(), event_dim)
    if kind in {"Gamma", "Exponential"}:
        mean = _like(prior.mean, value)
        shape = torch.ones_like(mean) if kind == "Exponential" else _like(prior.concentration, value).clamp_min(1)
        return GammaFactor(shape, shape / mean, event_dim)
    if kind == "Beta":
        first, second = (_like(part, value).clamp_min(1) for part in (prior.concentration1, prior.concentration0))
        return BetaFactor(first, second, event_dim)
    if kind == "Dirichlet":
        return DirichletFactor(_like(prior.concentration, value).clamp_min(1), event_dim)
    raise ValueError(
        f"MeanField has no factor for the site {name!r} of distribution {kind} with {event_dim} event dimensions: it "
        f"knows {', '.join(FAMILIES)} (the last two without event dimensions, in plates instead). For other models "
        f"use ELBO with a guide, e.g. one of pyro.infer.autoguide."
    )


def _like(part: Tensor, value: Tensor) -> Tensor:
    return part.detach().expand_as(value)
