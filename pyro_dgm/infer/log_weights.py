# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
r"""Log-weights, log p(x, z) - log q(z | x) for each particle and datum, are all that a bound needs to know."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from torch import Tensor

from pyro_dgm.infer.latent_site import LatentSite
from pyro_dgm.infer.particles import PLATE, particle_traces, sample_sites
from pyro_dgm.infer.reduction import Reduction
from pyro_dgm.nn.raised import raised

Scale = int | float | Tensor


@dataclass(frozen=True)
class LogWeights:
    r"""Unscaled log-weights with the terms they are the sum of.

    .. math:: \log w_{kb} = \sum_{s \in \text{model}} \log p_s - \sum_{s \in \text{guide}} \log q_s

    Attributes:
        model_terms: log p of each site of the model, in nats, each of shape ``(K, B)``. ``B`` stands for the plates
            that enclose every coupled site: usually the data plate; none if a latent variable is global.
        guide_terms: log q of each site of the guide, likewise.
        latent: Names of the model's terms that are latent; they and the guide's terms make up the KL term.
        constants: Observed sites outside those plates that no particle touches: scaled sums in nats, scalars. A single
            particle cannot tell whether it touches a site, so with K = 1 they may depend on it.
        scale: What the data's value is multiplied by *after* the particles are reduced (full size over subsample size,
            and `poutine.scale`); ``None`` if the coupled sites do not share one scale.
        scaled: The same weights with each site's own scale inside the terms, for bounds that are linear in them; kept
            only where ``scale`` is ``None``.
        score: Sum of log q over the sites that are not reparameterised, shape ``(K, B)``, or ``None``.
        nesting: How many dimensions the plates of model and guide take.
        sites: The latent variables that both programs have, with their distributions.
    """

    model_terms: dict[str, Tensor]
    guide_terms: dict[str, Tensor]
    latent: frozenset[str] = frozenset()
    constants: dict[str, Tensor] = field(default_factory=dict)
    scale: Scale | None = 1.0
    scaled: "LogWeights | None" = None
    score: Tensor | None = None
    nesting: int = 1
    sites: dict[str, LatentSite] = field(default_factory=dict)

    @property
    def log_w(self) -> Tensor:
        """The log-weights in nats, shape ``(K, B)``."""
        return self.weighted()

    @property
    def count(self) -> int | float | Tensor:
        """Number of data that the scaled sum over the batch stands for: N under a plate that subsamples B of N.

        It is the number of data in the batch where ``scale`` is ``None``.
        """
        units = next(iter({**self.model_terms, **self.guide_terms}.values()))[0]
        if isinstance(self.scale, Tensor):
            return self.scale.expand(units.shape).sum()
        return units.numel() * (1 if self.scale is None else self.scale)

    def weighted(self, beta: Tensor | int | float | None = None) -> Tensor:
        """Weigh the KL terms, log p(z) - log q(z | x), by beta; ``None`` leaves them alone (beta = 1).

        Args:
            beta: The weight, a number or a 0-dim tensor.

        Returns:
            Log-weights in nats, shape ``(K, B)``.
        """
        observed = [term for name, term in self.model_terms.items() if name not in self.latent]
        prior = [term for name, term in self.model_terms.items() if name in self.latent]
        posterior = list(self.guide_terms.values())
        if not posterior and not prior:
            return _total(observed)
        kl = (_total(prior) - _total(posterior)) if prior and posterior else _total(prior or [-_total(posterior)])
        return _total([*observed, kl if beta is None else beta * kl])


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _plates(site: Any) -> dict[int, tuple[str, int]]:
    """Name the vectorised plates around a site by dimension, with the extent that the site really has in each."""
    shape = site["unscaled_log_prob"].shape
    return {
        frame.dim: (frame.name, shape[frame.dim] if len(shape) >= -frame.dim else 1)
        for frame in site["cond_indep_stack"]
        if frame.vectorized and frame.name != PLATE
    }


def _common(sites: list[Any]) -> dict[int, tuple[str, int]]:
    common = _plates(sites[0]).items() if sites else {}.items()
    for site in sites[1:]:
        common = common & _plates(site).items()  # type: ignore[assignment]
    return dict(common)


def _same_scale(scale: Scale, other: Scale, *, linear: bool) -> bool:
    """Compare two sites' scales without waiting for a device: tensors that differ fail when the device gets there."""
    if other is scale:
        return True
    if not isinstance(other, Tensor) and not isinstance(scale, Tensor):
        return math.isclose(scale, other, rel_tol=1e-12)
    if linear:
        return False
    like = other if isinstance(other, Tensor) else scale
    first, second = (torch.as_tensor(part).to(like) for part in (scale, other))  # type: ignore[arg-type]
    if first.shape != second.shape:
        return False
    torch._assert_async(
        torch.isclose(first, second).all(), "The sites do not share one scale: scale all alike, or use ELBO."
    )
    return True


def _common_scale(sites: list[Any], units: list[int], *, linear: bool) -> Scale | None:
    """Find the one scale that all sites share, shaped like the units; ``None`` if there is none."""
    scale = sites[0]["scale"]
    if not all(_same_scale(scale, site["scale"], linear=linear) for site in sites[1:]):
        return None
    if not isinstance(scale, Tensor) or scale.dim() == 0:
        return scale
    kept = [dim for dim in range(-scale.dim(), 0) if dim in units]
    if any(scale.shape[dim] != 1 for dim in range(-scale.dim(), 0) if dim not in kept):
        return None
    return scale.reshape([scale.shape[dim] for dim in kept])


def _score(guide: dict[str, Any], reduce: Reduction) -> Tensor | None:
    """Sum the score functions of the sites whose samples carry no (or, by rejection, not all of the) gradient."""
    parts = [site["score_parts"].score_function for site in guide.values()]  # Pyro leaves them unscaled
    terms = [reduce(score) for score in parts if not is_identically_zero(score)]
    return _total(terms) if terms else None


def _with_scales(model: dict[str, Any], guide: dict[str, Any], latent: frozenset[str], reduce: Reduction) -> LogWeights:
    """Weigh with each site's own scale inside its term."""
    return LogWeights(
        model_terms={name: reduce(_scaled(site)) for name, site in model.items()},
        guide_terms={name: reduce(_scaled(site)) for name, site in guide.items()},
        latent=latent,
        scale=None,
        sites=_latent_sites(model, guide, reduce, scaled=True),
    )


def _latent_sites(
    model: dict[str, Any], guide: dict[str, Any], reduce: Reduction, *, scaled: bool = False
) -> dict[str, LatentSite]:
    """Pair the sites of the latent variables, and see whether the guide samples a variable's parents before it."""
    turns, order, latest = {name: turn for turn, name in enumerate(guide)}, {}, -1
    for name, site in model.items():
        if not site["is_observed"] and name in turns:
            order[name] = latest < turns[name]
            latest = max(latest, turns[name])
    return {name: LatentSite(guide[name], model[name], reduce, ordered, scaled) for name, ordered in order.items()}


def _scaled(site: Any) -> Tensor:
    return scale_and_mask(site["unscaled_log_prob"], site["scale"], site["mask"])


def _unscaled(site: Any) -> Tensor:
    return scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"])


def log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    particles: int = 1,
    max_plate_nesting: int | float = math.inf,
    linear: bool = False,
    **kwargs: Any,
) -> LogWeights:
    r"""Weigh K particles of the guide against the model, for every datum.

    .. math:: \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} \mid x_b), \qquad z_{kb} \sim q(z \mid x_b)

    The terms are kept for every datum of the plates that enclose all coupled sites, and summed over every other
    dimension. A plate's scale (subsampling) and `poutine.scale` stay out of the weights and are returned beside them;
    masks are applied. If a latent variable is global, its data share one weight, and the shape is ``(K,)``.

    Args:
        model: A Pyro program that observes the data.
        guide: Its guide.
        *args: What both are called with, the data first.
        particles: K. All particles run in one vectorised pass.
        max_plate_nesting: How many dimensions the program's own plates take; found by a run if not given.
        linear: Whether only sums of terms are wanted, as by an ELBO: then scales that are tensors need not be compared.
        **kwargs: Likewise, by name.

    Returns:
        A `LogWeights`; ``.log_w`` has shape ``(K, B)`` and is in nats.

    Raises:
        ValueError: If ``particles < 1``, the guide lacks a variable of the model, or the model scores nothing.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, section 3.
    """
    if particles < 1:
        raise ValueError(f"log_weights got particles={particles}: at least one is needed.")
    model_trace, guide_trace, nesting = particle_traces(
        model, guide, args, kwargs, particles=particles, max_plate_nesting=max_plate_nesting
    )
    in_model, in_guide = sample_sites(model_trace), sample_sites(guide_trace)
    if not in_model:
        raise ValueError("The model has no pyro.sample site, so there is nothing to weigh. Did it return too early?")
    outside = _untouched(in_model, in_guide)
    inside = {name: site for name, site in in_model.items() if name not in outside}
    coupled = [*inside.values(), *in_guide.values()]
    units = sorted(_common(coupled))
    reduce = Reduction(nesting, units, particles)
    scale = _common_scale(coupled, units, linear=linear)
    latent = frozenset(name for name, site in in_model.items() if not site["is_observed"])
    return LogWeights(
        model_terms={name: reduce(_unscaled(site)) for name, site in inside.items()},
        guide_terms={name: reduce(_unscaled(site)) for name, site in in_guide.items()},
        latent=latent,
        constants={name: raised(_scaled(in_model[name])).sum() / particles for name in outside},
        scale=scale,
        scaled=_with_scales(inside, in_guide, latent, reduce) if scale is None else None,
        score=_score(in_guide, reduce),
        nesting=nesting,
        sites=_latent_sites(inside, in_guide, reduce),
    )


def _untouched(model: dict[str, Any], guide: dict[str, Any]) -> list[str]:
    """Name the observed sites outside the latent variables' plates that no particle reaches: constants of a bound."""
    latent = [site for site in model.values() if not site["is_observed"]] + list(guide.values())
    shared = _common(latent).items()
    return [
        name
        for name, site in model.items()
        if shared and site["is_observed"] and site["infer"].get("_particle_free", True)
        if not shared & _plates(site).items()
    ]
