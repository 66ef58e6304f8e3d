# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which models and guides can be annealed: continuous latent variables, one vector of them for each datum."""

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.guide import GuideMessenger

Program = Callable[..., Any]
Sites = dict[str, Any]


def plain(guide: Program) -> Program:
    """Refuse an autoguide: its own variables are not the model's."""
    unwrapped = poutine.unwrap(guide)
    if isinstance(unwrapped, AutoGuide | GuideMessenger):
        raise ValueError(
            f"{type(unwrapped).__name__} draws auxiliary variables, so its density is not one of the model's latent "
            f"variables alone: start the path from the prior, or write the guide as a program."
        )
    return guide


def data_dim(sites: list[Any]) -> int:
    """Find the dimension of the one plate around every site, counted from the right."""
    if not sites:
        raise ValueError("The model has no pyro.sample site, so there is nothing to score. Did it return too early?")
    common = set.intersection(
        *({(frame.name, frame.dim) for frame in site["cond_indep_stack"] if frame.vectorized} for site in sites)
    )
    if len(common) != 1:
        names = sorted(name for name, _ in common)
        raise ValueError(
            f"The plates around every site of model and guide are {names}: exactly one is needed, whose "
            f"elements are the data. Put every site inside pyro.plate('data', len(x))."
        )
    ((_, dim),) = common
    return dim


def check_latent(model: Sites, latent: list[str], guide: Sites | None) -> None:
    """Refuse a model without latent variables, discrete ones, and a guide of other variables."""
    if not latent:
        raise ValueError("Nothing is latent in the model, so log p(x) is exact: use log_likelihood.")
    discrete = [name for name in latent if model[name]["fn"].support.is_discrete]
    if discrete:
        raise ValueError(
            f"The latent sites {discrete} are discrete, and Hamiltonian dynamics need gradients: sum them out inside "
            f"the model, or use log_likelihood."
        )
    if guide is not None and guide.keys() != set(latent):
        raise ValueError(
            f"The model has the latent sites {sorted(latent)} and the guide {sorted(guide)}: to start from the guide "
            f"they must be the same. Start from the prior instead."
        )
