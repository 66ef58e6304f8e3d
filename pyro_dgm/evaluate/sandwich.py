# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A log-likelihood between two bounds: annealing forwards and, from a posterior sample, backwards."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.annealed import acceptance_summary, acceptance_text, annealed_nll, check_start
from pyro_dgm.evaluate.annealing import Chains, Schedule, backwards, forwards
from pyro_dgm.evaluate.annealing_batches import Part, Settings, in_batches
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.log_likelihood import checked_nll
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS
from pyro_dgm.infer.particles import sample_sites


@dataclass(frozen=True, eq=False)
class Sandwich:
    """Two estimates of the NLL with the truth between them.

    Attributes:
        upper: -log p(x) from above: forward annealing.
        lower: -log p(x) from below: reverse annealing. Only heuristic if ``exact`` is false.
        acceptance: Acceptance of the forward and of the reverse transitions, each of shape ``(T - 1, N)`` and in the
            forward order.
        exact: Whether the reverse chains started from exact posterior samples. If not, they started where forward
            chains had ended, and ``lower`` is a bound only as far as those had reached the posterior.
    """

    upper: Estimate
    lower: Estimate
    acceptance: tuple[Tensor, Tensor]
    exact: bool

    @property
    def gap(self) -> Estimate:
        """How far the bounds are apart, datum by datum: neither is off by more, in expectation."""
        values = self.upper.values - self.lower.values
        return Estimate("gap =" if self.exact else "gap ~", values, method=self.lower.method, noun=self.upper.noun)

    def as_dict(self) -> dict[str, Any]:
        """List the summary for a JSON file."""
        forward, reverse = (acceptance_summary(part) for part in self.acceptance)
        return {
            "upper": self.upper.as_dict(),
            "lower": self.lower.as_dict(),
            "gap": self.gap.as_dict(),
            "exact": self.exact,
            "acceptance": {"forward": forward, "reverse": reverse},
        }

    def __str__(self) -> str:
        """Print one line for each bound and one for the gap."""
        bounds = zip((self.upper, self.lower), self.acceptance, strict=True)
        return "\n".join([*(f"{bound}{acceptance_text(part)}" for bound, part in bounds), str(self.gap)])


def sandwich(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    *,
    posterior_samples: Mapping[str, Tensor] | None = None,
    num_steps: int = 500,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Literal["prior", "guide"] = "prior",
    schedule: Schedule = "sigmoid",
    step_size: float | int | None = None,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> Sandwich:
    r"""Bound -log p(x) from above and from below by annealing in both directions (bidirectional Monte Carlo).

    .. math:: -\mathbb{E} \log \frac{1}{C} \sum_c w_c \;\ge\; -\log p(x) \;\ge\;
              \mathbb{E} \log \frac{1}{C} \sum_c \frac{1}{w'_c}

    The w are the weights of forward chains (`ais`), the w' those of chains that start from *exact* samples of
    p(z | x) and run the same transitions backwards; 1 / w' is an unbiased estimate of 1 / p(x). Chains of one datum may
    share their sample. Exact samples are known for data that the model has dreamt: see `bdmc`.

    Without posterior samples the reverse chains start where the forward chains ended, chosen by weight. Then ``lower``
    is not a bound (if all chains miss a mode, both sides miss it) and is printed ``NLL >~``; a wide gap still says
    that annealing was too fast.

    Args:
        model: As in `ais`, like all that is not listed here.
        guide: Its guide, or ``None``.
        x: Data of shape ``(N, *event)``.
        posterior_samples: For each latent site one exact sample of the posterior for each datum, shape ``(N, *site)``;
            or nothing.
        num_steps: Number of steps in each direction.
        num_chains: Chains in each direction, for each datum.
        num_leapfrog: Leapfrog steps of a transition.
        start: ``"prior"`` or ``"guide"``.
        schedule: ``"sigmoid"`` or ``"linear"``.
        step_size: A fixed step size, instead of a pilot run; both directions share it.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the chains. The samples must not come from the same random numbers.
        batch_size: Largest number of data at once.
        max_elements: Memory bound.

    Returns:
        `Sandwich`, all in nats.

    Raises:
        ValueError: As `ais` does, or if a latent site has no posterior sample for every datum.

    Source: Grosse, Ghahramani & Adams (2015), arXiv:1511.02543, section 4; Grosse, Ancha & Roy (NeurIPS 2016),
    arXiv:1606.02275.
    """
    settings = Settings(num_steps, num_chains, num_leapfrog, schedule, step_size, seed, batch_size, max_elements)
    samples = _one_per_datum(posterior_samples, x)

    def run(part: Part) -> dict[str, Tensor]:
        there = forwards(part.path, part.betas, part.steps, leapfrog=num_leapfrog)
        if samples is None:
            u = _resampled(there)
        else:
            u = part.path.pack({name: value[part.index.to(value.device)] for name, value in samples.items()})
        back = backwards(part.path, u, part.betas, part.steps, leapfrog=num_leapfrog)
        return {"log_w": there.log_w, "log_v": back.log_w, "forward": there.acceptance, "reverse": back.acceptance}

    found = in_batches(model, check_start(guide, start), x, run, settings, num_data=num_data)
    upper, exact = annealed_nll(found["log_w"], settings, x), samples is not None
    lower = replace(
        upper,
        name="NLL >=" if exact else "NLL >~",
        values=-checked_nll(math.log(num_chains) - (-found["log_v"]).logsumexp(0)),
        method=f"reverse AIS{' (heuristic)' * (not exact)}, {settings}",
        ess=None,
        k_hat=None,
    )
    return Sandwich(upper, lower, (found["forward"], found["reverse"]), exact)


def bdmc(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *,
    size: int = 100,
    site: str = "x",
    seed: int = 0,
    **options: Any,
) -> Sandwich:
    r"""Measure how tight annealing is for a model, on data that the model itself dreams.

    .. math:: z, x \sim p(z)\, p(x \mid z) \quad \Rightarrow \quad z \sim p(z \mid x)

    The z that a datum was made of is an exact posterior sample, so the bounds hold in expectation and the gap is an
    honest error bar for `ais` with the same options, as far as the real data are like the model's.

    Args:
        model: A Pyro program that dreams when called as ``model(size=B)`` and scores as ``model(x)``.
        guide: Its guide, for ``start="guide"``.
        size: How many data to dream.
        site: Name of the model's data site.
        seed: Seed of the data; the chains have the next one.
        **options: Those of `sandwich`.

    Returns:
        `Sandwich` of the dreamt data.

    Raises:
        ValueError: If ``size < 1``, the model has no such site, or as `sandwich` does.

    Source: Wu, Burda, Salakhutdinov & Grosse (ICLR 2017), arXiv:1611.04273, section 3.

    >>> from functools import partial
    >>> from pyro_dgm.models import VAE
    >>> from pyro_dgm.nn import MLP
    >>> vae = VAE(shape=(8, 8), levels=2, latent=2, encoder=partial(MLP, hidden=()), decoder=partial(MLP, hidden=()))
    >>> found = bdmc(vae.model, size=20, num_steps=50, num_chains=4)
    >>> bool((found.gap.values.mean().abs() < 0.2).all())
    True
    """
    if size < 1:
        raise ValueError(f"bdmc got size={size}: at least 1 datum is needed.")
    with frozen(model, seed=seed):
        dreamt = sample_sites(poutine.trace(model).get_trace(size=size))
    if site not in dreamt:
        raise ValueError(
            f"bdmc looked for the data at site {site!r} and the model has {sorted(dreamt)}: give one of these."
        )
    x = dreamt.pop(site)["value"]
    values = {name: node["value"] for name, node in dreamt.items()}
    return sandwich(model, guide, x, posterior_samples=values, seed=seed + 1, **options)


def _one_per_datum(samples: Mapping[str, Tensor] | None, x: Tensor) -> Mapping[str, Tensor] | None:
    wrong = [name for name, value in (samples or {}).items() if value.dim() < 1 or len(value) != len(x)]
    if wrong:
        raise ValueError(f"The posterior samples of {sorted(wrong)} are not one for each of the {len(x)} data.")
    return samples


def _resampled(chains: Chains) -> Tensor:
    """Draw chains' ends with probabilities in proportion to their weights: shape ``(C, B, D)``."""
    log_w = torch.where(chains.log_w.isneginf().all(0), 0.0, chains.log_w)
    chosen = torch.multinomial(log_w.softmax(0).mT, len(log_w), replacement=True).mT  # (C, B)
    return chains.state.u.gather(0, chosen.unsqueeze(-1).expand_as(chains.state.u))
