# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A recipe at work: rows that are done, rows to do, and the table that they make, in one folder."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from pyro_dgm.cli import schema
from pyro_dgm.cli.cookbook import parse, read
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.measure import measure
from pyro_dgm.cli.recipe import Recipe
from pyro_dgm.cli.run_folder import RunFolder
from pyro_dgm.cli.table import ResultTable
from pyro_dgm.cli.training import cpu_threads, finish, train
from pyro_dgm.train.durable import replace_file

JOB = "recipe.yaml"


@dataclass(frozen=True)
class Job:
    """A recipe with a budget and rows, and the folder that they are run in.

    Attributes:
        recipe: What is reproduced.
        budget: Name of the budget.
        rows: Names of the rows.
        folder: Holds ``recipe.yaml``, a run folder for each row, ``table.md`` and ``table.json``.
    """

    recipe: Recipe
    budget: str
    rows: list[str]
    folder: Path

    @classmethod
    def new(cls, name: str, *, budget: str | None, rows: list[str], folder: Path | None) -> "Job":
        """Begin in a new folder.

        Raises:
            UsageError: If the folder exists, or there is no such recipe, budget or row.
        """
        recipe = read(name)
        budget, rows = recipe.choose(budget, rows)
        folder = folder or Path("runs") / f"{recipe.name}-{budget}-{datetime.now():%Y%m%d-%H%M%S}"
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} exists already, and nothing is overwritten. Give another --folder, or continue with "
                f"`pyro-dgm reproduce --resume {folder}`."
            )
        for row in rows:  # a mistake in the last row must not show after hours
            schema.resolve(recipe.config(row, budget))
        folder.mkdir(parents=True, exist_ok=True)
        what = {"name": recipe.name, "budget": budget, "rows": rows, "recipe": recipe.text}
        replace_file(folder / JOB, yaml.safe_dump(what, sort_keys=False).encode())
        return cls(recipe, budget, rows, folder)

    @classmethod
    def open(cls, folder: Path) -> "Job":
        """Continue in a folder, with the recipe as it was when that began.

        Raises:
            UsageError: If nothing was begun there.
        """
        if not (folder / JOB).is_file():
            raise UsageError(f"{folder} holds no {JOB}: `pyro-dgm reproduce RECIPE --folder {folder}` begins there.")
        what = schema.load(folder / JOB)
        return cls(parse(what["name"], what["recipe"]), what["budget"], what["rows"], folder)

    def run(self, *, device: str | None) -> None:
        """Run the rows that are not done, then print and write the table."""
        console = Console() if Console().is_terminal else Console(width=200)
        budget = self.recipe.budgets[self.budget]
        console.print(f"{self.recipe.title}\nbudget {self.budget}: {budget.about}", highlight=False)
        results = {}
        for number, row in enumerate(self.rows, 1):
            done = RunFolder(self.folder / row).results()
            state = "done" if done else "running"
            console.print(f"\\[{number}/{len(self.rows)}] {self.recipe.rows[row].label}: {state}", highlight=False)
            results[row] = done or self._row(row, device=device)
        table = ResultTable(self.recipe, results)
        table.print(console)
        replace_file(self.folder / "table.md", table.markdown().encode())
        report = {"budget": {"name": self.budget, "about": budget.about}, **table.as_dict()}
        replace_file(self.folder / "table.json", json.dumps(report, indent=1).encode())
        console.print(f"table:    {self.folder / 'table.md'}\npictures: {self.folder}/*/figures/", soft_wrap=True)

    def _row(self, row: str, *, device: str | None) -> dict[str, Any]:
        """Fit a row, from where it stopped if it was begun, and measure it on the test split."""
        folder = RunFolder(self.folder / row)
        begun = folder.config_path.is_file()
        override = {} if device is None else {"device": device}
        config = schema.resolve(self.recipe.config(row, self.budget), override)
        settings = {"num_samples": 5000, **self.recipe.budgets[self.budget].evaluate}
        with cpu_threads(config.threads):
            trained = train(config, folder, resume=begun)
            start = time.monotonic()
            measures = measure(trained.assembly.program, trained.assembly.data.test.x, **settings)
            finish(trained, folder, {"test": measures.as_dict()}, start=start)
        return folder.results()
