# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``evaluate``: measure a trained run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pyro_dgm.cli.call import call
from pyro_dgm.cli.errors import UsageError, nearest

HELP = """usage: pyro-dgm evaluate RUN [options]

Measure the best weights of a run folder, always at beta = 1: NLL by importance sampling, -ELBO and
its parts, bits/dim, active units, with standard errors. Also written to RUN/results.json.

options:
  --split SPLIT       train, valid or test (default: test)
  --num_samples K     importance samples for each datum (default: 5000, as in tables; 0: no NLL)
  --elbo_samples K    samples for each datum's -ELBO (default: 1, as in tables)
  --num_data N        a random subset of so many data, the same for the same seed (default: all)
  --seed SEED         of the subset and of the samples (default: 0)
  --device DEVICE     auto, cpu or cuda (default: as in the run)
  --report SECTIONS   more, with pictures in RUN/figures: `full` (curve, collapse, surgery, gaps),
                      or some of these and of ais, bdmc (which take long), joined by commas
  --surgery_data N    the most data for surgery, whose cost is quadratic (default: 2000)
  --gap_data N        the most data for gaps, ais and bdmc (default: 100)
  --flow FLOW         gaps: a flow of `pyro-dgm list flows` that bends each fitted posterior further

examples:
  pyro-dgm evaluate runs/first --num_data 1000 --num_samples 500
  pyro-dgm evaluate runs/first --num_data 1000 --report full
  pyro-dgm evaluate runs/first --num_data 1000 --report gaps,ais --flow HouseholderSylvester
"""


def run(args: Sequence[str]) -> int:
    """Run the verb."""
    return call(evaluate, args)


def evaluate(
    folder: Path,
    *,
    split: Literal["train", "valid", "test"] = "test",
    num_samples: int = 5000,
    elbo_samples: int = 1,
    num_data: int | None = None,
    seed: int = 0,
    device: str | None = None,
    report: str | None = None,
    surgery_data: int = 2000,
    gap_data: int = 100,
    flow: str | None = None,
) -> int:
    """Measure a run, print the numbers and add them to its results."""
    from pyro_dgm.cli.assembly import trained
    from pyro_dgm.cli.measure import measure
    from pyro_dgm.cli.run_folder import RunFolder

    sections = _sections(report)
    bend = _flow(flow, sections)
    opened = RunFolder.open(folder)
    assembly = trained(opened, device=device)
    x = getattr(assembly.data, split).x
    samples: dict[str, Any] = {"num_samples": num_samples or None, "elbo_samples": elbo_samples}
    measures = measure(assembly.program, x, num_data=num_data, seed=seed, **samples)
    opened.add_results({split: measures.as_dict()})
    print(f"{folder}: {assembly.data.description.name}, {split} split")
    print(measures, flush=True)
    if sections:
        sizes = {"num_data": num_data, "surgery_data": surgery_data, "gap_data": gap_data, "seed": seed}
        judged = _judged(assembly.program, x, sections=sections, flow=bend, folder=opened.figures, split=split, **sizes)
        opened.add_results({split: {**measures.as_dict(), "report": judged}})
    return 0


def _judged(program: Any, x: Any, *, folder: Path, split: str, **options: Any) -> dict[str, Any]:
    """Measure the sections of a report, print and draw them; give them for a JSON file."""
    from pyro_dgm.cli.report_figures import draw_report
    from pyro_dgm.evaluate import judge

    judged = judge(program.model, program.guide, x, **options)
    print(judged)
    print(*draw_report(judged, folder, split=split), sep="\n")
    return judged.as_dict()


def _sections(report: str | None) -> list[str]:
    """Read the names of the sections that are wanted beside the numbers that are always measured."""
    from pyro_dgm.evaluate.report import SECTIONS, SLOW_SECTIONS

    always = ("terms", "nll", "units")
    full = [name for name in SECTIONS if name not in always]
    if report is None:
        return []
    names = full if report == "full" else [name.strip() for name in report.split(",")]
    known = [*full, *SLOW_SECTIONS]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--report has no section {name!r}.{nearest(name, [*known, 'full'])} Known: full, or some of "
                f"{', '.join(known)}, joined by commas."
            )
    return names


def _flow(name: str | None, sections: list[str]) -> Callable[..., Any] | None:
    """Find the flow of a name."""
    from pyro_dgm.cli.names import find

    if name is None:
        return None
    if "gaps" not in sections:
        raise UsageError("--flow bends the posteriors that the section `gaps` fits: add --report gaps.")
    return find(name, ("pyro_dgm.transforms",), option="flow")
