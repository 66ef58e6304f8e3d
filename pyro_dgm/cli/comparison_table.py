# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The table of a comparison: what each method's mixture is worth, how far it is from the reference's, what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_dgm.evaluate import Estimate
from pyro_dgm.evaluate.matching import matched_distance
from pyro_dgm.train import MixtureFit

NOTES = (
    "objective: what the method raises, at its end; ELBOs and bounds are below log p(x), the bound of mean_field is of "
    "all data together, parameters included.",
    "held-out: log p(x) of the test split, mean +- standard error over data; predictive (parameters averaged) for "
    "mean_field and nuts.",
    "to means: mean distance of matched components, by the weights of the reference; ARI: adjusted Rand index of the "
    "most probable components, 1 the same, 0 chance.",
    "gap: mean KL(q(z | x) || p(z | x)) over the training data, what the objective lacks to log p(x).",
    "sweeps, s: of the method alone; not of the start that all but mean_field share (k-means++ and ten sweeps of "
    "k-means), nor of mean_field's own (k-means to the end).",
)


@dataclass(frozen=True)
class Row:
    """One method's numbers; None where there is no such number.

    Attributes:
        method: Its name.
        objective: What it raises, in words.
        train: That objective at the end, nats per datum.
        log_prob: log p(x), or predictive, of the training data, nats per datum.
        held_out: The same of the held-out data.
        held_out_error: Its standard error.
        gap: See `MixtureFit`.
        distance: Mean distance of its means to the reference's, matched and weighed by the reference's weights.
        agreement: Adjusted Rand index of its assignments with the reference's: 1 are the same, 0 is chance.
        labels: Adjusted Rand index of its assignments with the labels of the data.
        sweeps: Passes through the data.
        seconds: Its own seconds.
        note: What else is to be said.
        few: Components that hold fewer than 2 data, by number, and how many each holds (sum of responsibilities).
    """

    method: str
    objective: str
    train: float
    log_prob: float
    held_out: float
    held_out_error: float | None
    gap: float | None
    distance: float
    agreement: float
    labels: float | None
    sweeps: int | float
    seconds: float
    note: str
    few: dict[int, float]

    @property
    def cells(self) -> list[str]:
        """The row as text, but for the note."""
        error = "" if self.held_out_error is None else f" +- {self.held_out_error:.3f}"
        return [
            self.method,
            f"{self.train:.3f} ({self.objective})",
            f"{self.held_out:.3f}{error}",
            _number(self.gap, 4),
            _number(self.distance, 3),
            _number(self.agreement, 3),
            _number(self.labels, 3),
            f"{self.sweeps:g}",
            f"{self.seconds:.2f}",
        ]


class ComparisonTable:
    """Rows of text, to be printed or written as Markdown or JSON.

    Args:
        fits: What each method gave, by name.
        labels: Labels of the training data, int64 of shape ``(N,)``, or None.
        title: What was compared.

    Attributes:
        reference: Name of the method that the others are held against: EM, or else the first.
        rows: A `Row` per method.
    """

    def __init__(self, fits: Mapping[str, MixtureFit], labels: Tensor | None, *, title: str) -> None:
        self.title = title
        self.reference = "em" if "em" in fits else next(iter(fits))
        self.rows = [_row(fit, fits[self.reference], labels) for fit in fits.values()]

    @property
    def head(self) -> list[str]:
        """The column titles."""
        of = f"of {self.reference}"
        return ["method", "objective", "held-out", "gap", f"to means {of}", f"ARI {of}", "ARI labels", "sweeps", "s"]

    @property
    def footnotes(self) -> list[str]:
        """What is to be said of the columns, and of single rows."""
        own = [f"{row.method}: {row.note}." for row in self.rows if row.note]
        for row in self.rows:
            if row.few:
                held = ", ".join(f"component {k} holds {count:.1f} data" for k, count in row.few.items())
                own.append(f"{row.method}: {held}.")
        return ["Nats per datum, of the coordinates as they were fitted; higher is better.", *NOTES, *own]

    def print(self, console: Console) -> None:
        """Print the table, and what is to be said about it."""
        table = Table(*self.head, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row.cells)
        console.print(table)
        for line in self.footnotes:
            console.print(line, highlight=False)

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.head, ["---"] * len(self.head), *(row.cells for row in self.rows)]
        table = [f"| {' | '.join(cells)} |" for cells in lines]
        return "\n".join([f"# {self.title}", "", *table, "", *(f"- {line}" for line in self.footnotes), ""])

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file."""
        rows = {row.method: vars(row) for row in self.rows}
        return {"title": self.title, "reference": self.reference, "rows": rows, "notes": self.footnotes}


def _row(fit: MixtureFit, reference: MixtureFit, labels: Tensor | None) -> Row:
    held = fit.responsibilities.double().sum(0).tolist()
    held_out = Estimate("NLL", -fit.held_out.double().cpu(), method="exact", density=True)
    return Row(
        method=fit.method,
        objective=fit.objective,
        train=fit.curve.objectives[-1],
        log_prob=float(fit.train.mean()),
        held_out=-held_out.mean,
        held_out_error=held_out.standard_error if len(fit.held_out) > 1 else None,
        gap=fit.gap,
        distance=float(matched_distance(fit.means, reference.means, reference.weights)),
        agreement=_agreement(fit.assignments, reference.assignments),
        labels=None if labels is None else _agreement(fit.assignments, labels),
        sweeps=fit.curve.sweeps[-1],
        seconds=fit.curve.seconds[-1],
        note=fit.note,
        few={k: count for k, count in enumerate(held) if count < 2},
    )


def _agreement(a: Tensor, b: Tensor) -> float:
    """Adjusted Rand index of two assignments (Hubert & Arabie 1985)."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a.cpu().numpy(), b.cpu().numpy()))


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
