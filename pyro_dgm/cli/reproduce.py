# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``reproduce``: run a recipe and print published numbers beside measured ones."""

from collections.abc import Sequence
from pathlib import Path

from pyro_dgm.cli.call import call
from pyro_dgm.cli.errors import UsageError, resumable

HELP = """usage: pyro-dgm reproduce RECIPE [options]
       pyro-dgm reproduce --resume FOLDER

Fit and measure the rows of a recipe, then print what was published beside what was measured, with
the epochs and the time that were spent. Writes table.md, table.json and a run folder for each row.
Ctrl-C saves, and --resume continues: finished rows are kept, an unfinished one goes on.

RECIPE is a name of `pyro-dgm list recipes`, or a YAML file of your own (copy one from
pyro_dgm/recipes).

options:
  --budget BUDGET     how much to spend: `full`, `small` ... (default: the recipe's first)
  --rows ROW,ROW      only these rows (default: all of the budget)
  --folder FOLDER     where to write (default: runs/RECIPE-BUDGET-TIME)
  --jobs N            how many rows to run at once, each in a process of its own (default: 1)
  --device DEVICE     auto, cpu or cuda (default: auto)

examples:
  pyro-dgm reproduce digits
  pyro-dgm reproduce sylvester-mnist --budget small --jobs 2
"""


def run(args: Sequence[str]) -> int:
    """Run the verb."""
    return call(reproduce, args)


def reproduce(
    recipe: str | None = None,
    *,
    budget: str | None = None,
    rows: str | None = None,
    folder: Path | None = None,
    resume: Path | None = None,
    jobs: int = 1,
    device: str | None = None,
) -> int:
    """Reproduce a recipe, or continue where that was interrupted."""
    from pyro_dgm.cli.job import Job

    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1 is needed.")
    if resume is not None:
        if recipe or budget or rows or folder:
            raise UsageError("--resume FOLDER goes alone: recipe, budget and rows are as they were.")
        job = Job.open(resume)
    elif recipe is None:
        raise UsageError("which RECIPE? `pyro-dgm list recipes` names them; digits takes minutes.")
    else:
        job = Job.new(recipe, budget=budget, rows=[row for row in (rows or "").split(",") if row], folder=folder)
    with resumable(f"pyro-dgm reproduce --resume {job.folder}", job.folder):
        job.run(device=device, jobs=jobs)
    return 0
