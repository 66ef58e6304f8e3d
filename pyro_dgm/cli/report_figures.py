# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Draw what a report measured into a run's folder: bound curve, parts of the KL term, parts of the gap."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from pyro_dgm import plots
from pyro_dgm.evaluate import ElboSurgery, Estimate, GapSplit, Report


def draw_report(report: Report, folder: Path, *, split: str) -> list[Path]:
    """Draw the sections of a report that have a picture, as PNG files.

    Args:
        report: What was measured.
        folder: Where to; it is made.
        split: Which data, part of the files' names.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in _figures(report):
        files.append(folder / f"{name}-{split}.png")
        figure.savefig(files[-1], dpi=150)
    return files


def _figures(report: Report) -> Iterator[tuple[str, Figure]]:
    if report.curve:
        counts = [int(point.method.split()[1]) for point in report.curve]
        means, errors = [point.mean for point in report.curve], [point.standard_error for point in report.curve]
        yield "bound_curve", plots.bound_vs_particles(counts, means, errors, unit=_unit(report.curve[0]))
    if report.surgery is not None:
        yield "surgery", _bars(_of_surgery(report.surgery), "What the average KL term is made of")
    if report.gaps is not None:
        yield "gaps", _bars(_of_gaps(report.gaps), "What the guide loses")


Bars = list[tuple[str, float, Estimate]]


def _of_surgery(surgery: ElboSurgery) -> Bars:
    """The whole, then its parts, then the parts of the last part: names, begins and estimates."""
    information = surgery.mutual_information.mean
    bars: Bars = [
        ("average KL", 0.0, surgery.kl),
        ("index-code information", 0.0, surgery.mutual_information),
        ("marginal KL", information, surgery.marginal_kl),
    ]
    if surgery.total_correlation is not None and surgery.dimension_kls is not None:
        bars.append(("total correlation", information, surgery.total_correlation))
        bars.append(("KL by dimension", information + surgery.total_correlation.mean, surgery.dimension_kls))
    return bars


def _of_gaps(gaps: GapSplit) -> Bars:
    bars: Bars = [
        ("inference gap", 0.0, gaps.inference),
        ("amortisation", 0.0, gaps.amortization),
        ("approximation", gaps.amortization.mean, gaps.approximation),
    ]
    if gaps.flow is not None:
        bars.append(("of it won by a flow", gaps.amortization.mean, gaps.flow))
    return bars


def _unit(estimate: Estimate) -> str:
    return f"nats per {estimate.noun}"


def _bars(bars: Bars, title: str) -> Figure:
    return plots.part_bars(
        {name: (begin, begin + part.mean) for name, begin, part in bars},
        standard_errors={name: (part.standard_error,) for name, _, part in bars},
        unit=_unit(bars[0][2]),
        title=title,
    )
