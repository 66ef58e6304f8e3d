# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One report of a trained model: how well it explains data, what its guide loses, and what its codes know."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pyro_dgm.evaluate.active_units import ActiveUnits, active_units
from pyro_dgm.evaluate.annealed import Annealed, ais
from pyro_dgm.evaluate.bound_curve import bound_curve
from pyro_dgm.evaluate.collapse import Collapse, collapse
from pyro_dgm.evaluate.elbo_surgery import ElboSurgery, elbo_surgery
from pyro_dgm.evaluate.elbo_terms import ElboTerms, elbo_terms
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.gap_split import GapSplit, gap_split
from pyro_dgm.evaluate.log_likelihood import log_likelihood
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.sandwich import Sandwich, bdmc

SECTIONS = ("terms", "nll", "curve", "units", "collapse", "surgery", "gaps")
"""What a report has by default; ``"ais"`` and ``"bdmc"``, which take long, may be added."""

SLOW_SECTIONS = ("ais", "bdmc")
TITLES = {
    "nll": "likelihood",
    "terms": "evidence lower bound",
    "curve": "bound by number of particles",
    "ais": "likelihood by annealing",
    "bdmc": "annealing on data of the model's own",
    "gaps": "what the guide loses",
    "surgery": "what the codes know",
    "units": "active units",
    "collapse": "posterior collapse",
}


@dataclass(frozen=True, eq=False)
class Report:
    """What `judge` found; a section that was not asked for is ``None``.

    Attributes:
        terms: The -ELBO and its parts.
        nll: The NLL by importance sampling, with effective sample sizes and k-hat.
        curve: The negative bound for several numbers of particles.
        units: The active units.
        collapse: The units whose posterior is their prior.
        surgery: The parts of the average KL term.
        gaps: The parts of the inference gap.
        ais: The NLL by annealed importance sampling.
        bdmc: Two bounds on the NLL of data that the model dreamt.
        refused: For each section that could not be measured, why.
    """

    terms: ElboTerms | None = None
    nll: Estimate | None = None
    curve: tuple[Estimate, ...] | None = None
    units: ActiveUnits | None = None
    collapse: Collapse | None = None
    surgery: ElboSurgery | None = None
    gaps: GapSplit | None = None
    ais: Annealed | None = None
    bdmc: Sandwich | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """List all sections for a JSON file."""
        found = {name: getattr(self, name) for name in TITLES if name != "curve"}
        report = {name: section.as_dict() for name, section in found.items() if section is not None}
        if self.curve is not None:
            report["curve"] = [point.as_dict() for point in self.curve]
        return {**report, "refused": self.refused} if self.refused else report

    def __str__(self) -> str:
        """Print every section under its title."""
        return "\n".join(
            f"{title}\n" + "\n".join(f"  {line}" for line in self._lines(name))
            for name, title in TITLES.items()
            if getattr(self, name) is not None or name in self.refused
        )

    def _lines(self, name: str) -> list[str]:
        if name in self.refused:
            return [f"not measured: {self.refused[name]}"]
        section = getattr(self, name)
        if name == "curve":
            return [str(point) for point in section]
        lines = str(section).splitlines()
        if name == "nll" and section.ess is not None:
            lines.append(f"effective samples: median {section.ess.median():.3g}, least {section.ess.min():.3g}")
        if name == "nll" and section.k_hat is not None:
            worst = f"largest {section.k_hat.max():.2f}"
            lines.append(f"k-hat of the weights: median {section.k_hat.median():.2f}, {worst} (trusted to 0.7)")
        return lines


def judge(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    sections: Collection[str] = SECTIONS,
    num_samples: int = 5000,
    elbo_samples: int = 1,
    particles: Sequence[int] = (1, 10, 100, 1000),
    flow: Callable[..., Any] | None = None,
    num_data: int | None = None,
    surgery_data: int = 2000,
    gap_data: int = 100,
    annealing_steps: int = 500,
    seed: int = 0,
) -> Report:
    """Measure all there is to know of a trained model, with the same data for all sections that can afford them.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``, on the model's device.
        sections: What to measure, any of ``"terms"`` (`elbo_terms`), ``"nll"`` (`log_likelihood`), ``"curve"``
            (`bound_curve`), ``"units"`` (`active_units`), ``"collapse"`` (`collapse`), ``"surgery"`` (`elbo_surgery`),
            ``"gaps"`` (`gap_split`), ``"ais"`` (`ais`; the gaps then take log p(x) from it) and ``"bdmc"`` (`bdmc`).
            Without latent variables only the first two have an answer.
        num_samples: Importance samples of each datum for the NLL.
        elbo_samples: Samples of each datum for the -ELBO and its parts.
        particles: Numbers of particles of the bound curve.
        flow: Makes a flow from ``dim`` and ``context_dim`` that bends the fitted posteriors of `gap_split`.
        num_data: Size of a random subset; ``None`` is all.
        surgery_data: The most data for the aggregate posterior, whose cost is quadratic.
        gap_data: The most data whose posteriors are fitted one by one or annealed, and how many are dreamt.
        annealing_steps: Steps of annealing, for ``"ais"`` and ``"bdmc"``.
        seed: Seed of the subset and of all samples.

    Returns:
        `Report`; print it, or write its ``as_dict()`` to a JSON file.

    Raises:
        ValueError: If a section is not known, x is empty, or a number is out of range. A section that this pair of
            model and guide cannot have (a mean of a categorical variable, say) is listed under ``refused``.
    """
    counts = {"num_samples": num_samples, "elbo_samples": elbo_samples, "annealing_steps": annealing_steps}
    _check(sections, {**counts, "surgery_data": surgery_data, "gap_data": gap_data}, particles)
    pair = (model, guide)
    if not elbo_terms(*pair, x[:1]).kl:
        sections = [name for name in sections if name in ("terms", "nll")]
    size = len(random_subset(len(x), num_data, seed=seed))  # refuses what is out of range
    few: dict[str, Any] = {"num_data": min(size, gap_data), "seed": seed}
    many: dict[str, Any] = {"num_data": num_data, "seed": seed}
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    measures: dict[str, Callable[[], Any]] = {
        "terms": lambda: elbo_terms(*pair, x, num_samples=elbo_samples, **many),
        "nll": lambda: log_likelihood(*pair, x, num_samples=num_samples, **many),
        "curve": lambda: tuple(bound_curve(*pair, x, particles=particles, **many)),
        "units": lambda: active_units(*pair, x, num_samples=1000, **many),
        "collapse": lambda: collapse(*pair, x, **many),
        "surgery": lambda: elbo_surgery(*pair, x, num_data=min(size, surgery_data), seed=seed),
        "ais": lambda: ais(*pair, x, num_steps=annealing_steps, **few),
        "gaps": lambda: gap_split(*pair, x, flow=flow, nll=found["ais"].nll if "ais" in found else None, **few),
        "bdmc": lambda: bdmc(*pair, size=gap_data, num_steps=annealing_steps, seed=seed),
    }
    for name in (name for name in measures if name in sections):
        _try(name, measures[name], found, refused)
    return Report(**found, refused=refused)


def _check(sections: Collection[str], counts: dict[str, int], particles: Sequence[int]) -> None:
    """Refuse what is out of range before anything is measured: later it would pass for a limit of a section."""
    if unknown := sorted(set(sections) - set(TITLES)):
        raise ValueError(f"judge got the sections {unknown}: it knows {', '.join((*SECTIONS, *SLOW_SECTIONS))}.")
    for name, value in {**counts, **{f"particles[{place}]": count for place, count in enumerate(particles)}}.items():
        if value < 1:
            raise ValueError(f"judge got {name}={value}: at least 1 is needed.")


def _try(name: str, measure: Callable[[], Any], found: dict[str, Any], refused: dict[str, str]) -> None:
    """Measure a section, or write down why it cannot be measured."""
    try:
        found[name] = measure()
    except ValueError as error:
        if name in ("terms", "nll", "curve"):  # every model has these, so the mistake is in what was asked
            raise
        refused[name] = str(error)
