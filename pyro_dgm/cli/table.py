# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A recipe's table: published numbers beside measured ones, and the budget that was spent."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pyro_dgm.cli.recipe import Recipe

MEASURES = {
    "nll": "NLL (IS)",
    "nll_difference": "NLL vs {baseline}",
    "negative_elbo": "-ELBO",
    "negative_elbo_difference": "-ELBO vs {baseline}",
    "gap": "gap",
    "kl": "KL",
    "negative_elbo_bits_per_dim": "-ELBO, bits/dim",
    "bits_per_dim": "bits/dim",
    "active_units": "active units",
}
"""What a row can report, and what the table's columns are called; nats unless it says otherwise."""
_DIFFERENCE = "vs {baseline}: the row's less that of row {baseline}, paired datum by datum; below 0 is better."
SAID_OF = {
    "gap": "gap: -ELBO less NLL, datum by datum; as the NLL is an upper bound, a lower bound on the inference gap.",
    "nll_difference": _DIFFERENCE,
    "negative_elbo_difference": _DIFFERENCE,
}
"""What a footnote says of a measure."""

Result = Mapping[str, Any]


class ResultTable:
    """Rows of text, to be printed or written as Markdown.

    Args:
        recipe: What was reproduced.
        results: What each row's run measured, by row: ``results.json`` of its run folder.
    """

    def __init__(self, recipe: Recipe, results: Mapping[str, Result]) -> None:
        self.recipe = recipe
        self.results = results
        self.columns = [key for key in recipe.measures if self._measured(key) or self._published(key)]

    @property
    def head(self) -> list[str]:
        """The column titles; a measure that was published has two columns."""
        titles = ["row"]
        for key in self.columns:
            title = MEASURES[key].format(baseline=self.recipe.baseline)
            titles += [f"{title} published", f"{title} measured"] if self._published(key) else [title]
        return [*titles, "epochs", "time"]

    @property
    def rows(self) -> list[list[str]]:
        """One list of cells for each row that has a result or a published number."""
        return [self._row(name) for name in self._names]

    @property
    def footnotes(self) -> list[str]:
        """Estimators, sources and the recipe's notes."""
        lines = list(self.recipe.notes)
        if self.results:
            first = next(iter(self.results.values()))
            texts = [first["test"][key]["text"] for key in ("nll", "negative_elbo") if key in first["test"]]
            how = "; ".join(text[text.rindex("(") :].strip("()").split(", k-hat")[0] for text in texts)
            lines.insert(0, f"Test split, mean +- standard error over data, nats unless it says bits: {how}.")
            said = [SAID_OF[key].format(baseline=self.recipe.baseline) for key in self.columns if key in SAID_OF]
            lines[1:1] = dict.fromkeys(said)
        entries = [entry for name in self._names for entry in self.recipe.rows[name].published.values()]
        sources = {f"{'Published' if entry.verified else 'Unverified'}: {entry.source}." for entry in entries}
        return [*lines, *sorted(sources)]

    def print(self, console: Console) -> None:
        """Print the table, and what is to be said about it."""
        table = Table(*self.head, title=self.recipe.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for line in self.footnotes:
            console.print(line, highlight=False)

    def markdown(self) -> str:
        """The table as Markdown."""
        table = [_bar(self.head), _bar(["---"] * len(self.head)), *map(_bar, self.rows)]
        return "\n".join([f"# {self.recipe.title}", "", *table, "", *(f"- {line}" for line in self.footnotes), ""])

    def as_dict(self) -> dict[str, Any]:
        """Published and measured numbers for a JSON file."""
        return {
            "recipe": self.recipe.name,
            "title": self.recipe.title,
            "rows": {
                name: {
                    "label": self.recipe.rows[name].label,
                    "published": {key: vars(entry) for key, entry in self.recipe.rows[name].published.items()},
                    "measured": self.results.get(name),
                }
                for name in self._names
            },
            "notes": self.footnotes,
        }

    @property
    def _names(self) -> list[str]:
        return [name for name, row in self.recipe.rows.items() if name in self.results or row.published]

    def _published(self, key: str) -> bool:
        return any(key in row.published for row in self.recipe.rows.values())

    def _measured(self, key: str) -> bool:
        return any(key in result["test"] for result in self.results.values())

    def _row(self, name: str) -> list[str]:
        row, result = self.recipe.rows[name], self.results.get(name)
        cells = [row.label]
        for key in self.columns:
            if self._published(key):
                cells.append(str(row.published.get(key, "")))
            cells.append("not run" if result is None else _cell(key, result["test"].get(key)))
        if result is None:
            return [*cells, "", ""]
        return [*cells, str(result["epochs"]), _duration(result["seconds"]["fit"] + result["seconds"]["evaluate"])]


def _cell(key: str, entry: Any) -> str:  # noqa: ANN401 -- from JSON
    if entry is None:
        return ""
    if key == "active_units":
        return ", ".join(f"{count}/{entry['units'][site]}" for site, count in entry["counts"].items())
    decimals = 3 if entry["unit"] == "bits/dim" else 2
    error = entry["standard_error"]
    return f"{entry['mean']:.{decimals}f}" + ("" if error is None else f" +- {error:.{decimals}f}")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bar(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
