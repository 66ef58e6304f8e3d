# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A recipe at work: rows that are done, rows to do, and the table that they make, in one folder."""

import json
import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import yaml
from rich.console import Console

from pyro_dgm.cli import schema, values
from pyro_dgm.cli.cookbook import parse, read
from pyro_dgm.cli.errors import UsageError, is_mistake
from pyro_dgm.cli.layers import Tree
from pyro_dgm.cli.measure import measure
from pyro_dgm.cli.recipe import Recipe
from pyro_dgm.cli.run_folder import RunFolder
from pyro_dgm.cli.table import Result, ResultTable
from pyro_dgm.cli.training import cpu_threads, finish, train
from pyro_dgm.cli.values import differences, joined, pooled, summary
from pyro_dgm.train.durable import replace_file

JOB = "recipe.yaml"


@dataclass(frozen=True)
class Job:
    """A recipe with a budget and rows, and the folder that they are run in.

    Attributes:
        recipe: What is reproduced.
        budget: Name of the budget.
        rows: Names of the rows.
        folder: Holds ``recipe.yaml``, a run folder for each row (or, in the row's, for each repeat), ``table.md`` and
            ``table.json``.
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
            for repeat in recipe.repeats_of(budget):
                schema.resolve(recipe.config(row, budget, repeat))
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

    def run(self, *, device: str | None, jobs: int = 1) -> None:
        """Run the rows that are not done, ``jobs`` at once, then print and write the table."""
        console = Console() if Console().is_terminal else Console(width=200)
        budget = self.recipe.budgets[self.budget]
        console.print(f"{self.recipe.title}\nbudget {self.budget}: {budget.about}", highlight=False)
        self._run_all(console, device=device, jobs=jobs)
        table = ResultTable(self.recipe, self._results())
        table.print(console)
        replace_file(self.folder / "table.md", table.markdown().encode())
        report = {"budget": {"name": self.budget, "about": budget.about}, **table.as_dict()}
        replace_file(self.folder / "table.json", json.dumps(report, indent=1).encode())
        pictures = f"{self.folder}/{'*' if self._repeats == [None] else '*/*'}/figures/"
        console.print(f"table:    {self.folder / 'table.md'}\npictures: {pictures}", soft_wrap=True)

    def run_one(self, row: str, repeat: str | None, *, device: str | None, progress: bool = True) -> None:
        """Fit a row, from where it stopped if it was begun, and measure it on the test split."""
        folder = self._folder(row, repeat)
        begun = folder.config_path.is_file()
        override: Tree = {} if device is None else {"device": device}
        if not progress:
            override["trainer"] = {"progress": False}
        config = schema.resolve(self.recipe.config(row, self.budget, repeat), override)
        settings = {"num_samples": 5000, **self.recipe.budgets[self.budget].evaluate}
        with cpu_threads(config.threads):
            trained = train(config, folder, resume=begun)
            start = time.monotonic()
            measures = measure(trained.assembly.program, trained.assembly.data.test.x, **settings)
            values.write(folder.path, measures.estimates)
            finish(trained, folder, {"test": measures.as_dict()}, start=start)

    @property
    def _repeats(self) -> list[str | None]:
        return self.recipe.repeats_of(self.budget)

    def _folder(self, row: str, repeat: str | None) -> RunFolder:
        return RunFolder(self.folder / row / (repeat or ""))

    def _run_all(self, console: Console, *, device: str | None, jobs: int) -> None:
        """Run every row in every repeat, one after the other, or several at once in processes of their own."""
        runs = [(row, repeat) for row in self.rows for repeat in self._repeats]

        def say(run: tuple[str, str | None], state: str) -> None:
            label = self.recipe.rows[run[0]].label + ("" if run[1] is None else f", {run[1]}")
            console.print(f"\\[{runs.index(run) + 1}/{len(runs)}] {label}: {state}", highlight=False)

        waiting = [run for run in runs if not self._folder(*run).results()]
        for run in runs:
            if run not in waiting:
                say(run, "done")
        if jobs == 1 or len(waiting) < 2:
            for run in waiting:
                say(run, "running")
                self.run_one(*run, device=device)
            return
        workers = min(jobs, len(waiting))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_stop_with_parent) as pool:
            futures = {pool.submit(_run_elsewhere, self.folder, *run, device): run for run in waiting}
            try:
                for future in as_completed(futures):
                    future.result()
                    say(futures[future], "done")
            except BaseException:
                pool.shutdown(cancel_futures=True)  # rows that run save first
                raise

    def _results(self) -> Mapping[str, Result]:
        """What each row's runs have measured together, with its differences to the baseline."""
        runs = {row: [self._folder(row, repeat) for repeat in self._repeats] for row in self.rows}
        estimates = {row: pooled([values.read(run.path) for run in of_row]) for row, of_row in runs.items()}
        results = {row: joined([run.results() for run in of_row], estimates[row]) for row, of_row in runs.items()}
        baseline = self.recipe.baseline
        if baseline in results:
            for row in results.keys() - {baseline}:
                if results[row]["data"] == results[baseline]["data"]:
                    results[row]["test"] |= summary(differences(estimates[row], estimates[baseline]))
        return results


def _stop_with_parent() -> None:
    """Have this process save and end when the one that started it is gone: nobody would wait for its rows."""

    def wait() -> None:
        parent_process().join()  # type: ignore[union-attr]
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()


def _run_elsewhere(folder: Path, row: str, repeat: str | None, device: str | None) -> None:
    """Run a row in a process of its own, in silence. Errors go back as classes that can be pickled."""
    try:
        Job.open(folder).run_one(row, repeat, device=device, progress=False)
    except KeyboardInterrupt as interruption:
        if not parent_process().is_alive():  # type: ignore[union-attr]
            os._exit(128 + signal.SIGTERM)  # the pool would have this process wait for more
        raise KeyboardInterrupt(str(interruption)) from None
    except Exception as error:
        raise (UsageError(f"row {row}: {error}") if is_mistake(error) else error) from None
