# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A recipe is a table to reproduce: what to fit for each row, how to measure it, what was published."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from pyro_dgm.cli.errors import UsageError, nearest
from pyro_dgm.cli.layers import Tree, merge
from pyro_dgm.cli.published import Published


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: What the table calls it.
        fit: A configuration, laid over the one that all rows share.
        published: Numbers from the literature, by measure.
    """

    label: str
    fit: Tree = field(default_factory=dict)
    published: dict[str, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How much to spend.

    Attributes:
        about: One line.
        fit: A configuration, laid over each row's.
        evaluate: How to measure: ``num_samples``, ``elbo_samples``, ``num_data``, ``seed``.
        rows: Which rows, each with a configuration to lay over all others; none means all.
        repeats: Which of the recipe's repeats; none means all.
    """

    about: str
    fit: Tree = field(default_factory=dict)
    evaluate: Tree = field(default_factory=dict)
    rows: dict[str, Tree] = field(default_factory=dict)
    repeats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A table that one command reproduces.

    Attributes:
        name: What ``pyro-dgm reproduce`` calls it.
        title: One line.
        measures: The columns, keys of `pyro_dgm.cli.table.MEASURES`.
        fit: The configuration that all rows share.
        rows: By name.
        budgets: By name; the first one is the default.
        notes: Printed under the table.
        text: The YAML that it was read from.
        baseline: The row that the measures called difference compare with, datum by datum.
        repeats: Configurations to run every row with, by name (splits of the data, say); the table has their mean.
    """

    name: str
    title: str
    measures: tuple[str, ...]
    fit: Tree
    rows: dict[str, Row]
    budgets: dict[str, Budget]
    notes: tuple[str, ...]
    text: str
    baseline: str | None = None
    repeats: dict[str, Tree] = field(default_factory=dict)

    def config(self, row: str, budget: str, repeat: str | None = None) -> Tree:
        """The configuration of one row under one budget, in one of the repeats if there are any."""
        chosen = self.budgets[budget]
        layers = [self.rows[row].fit, chosen.fit, chosen.rows.get(row, {}), self.repeats.get(repeat or "", {})]
        return reduce(merge, layers, self.fit)

    def repeats_of(self, budget: str) -> list[str | None]:
        """The names of the repeats under a budget; a single None if there are none."""
        return list(self.budgets[budget].repeats or self.repeats or [None])

    def choose(self, budget: str | None, rows: Sequence[str]) -> tuple[str, list[str]]:
        """The named budget, or the first, and the named rows, or all of that budget.

        Raises:
            UsageError: If there is no such budget or row.
        """
        budget = budget or next(iter(self.budgets))
        if budget not in self.budgets:
            hint = nearest(budget, self.budgets)
            raise UsageError(f"recipe {self.name} has no budget {budget!r}.{hint} Budgets: {', '.join(self.budgets)}.")
        for row in rows:
            if row not in self.rows:
                hint = nearest(row, self.rows)
                raise UsageError(f"recipe {self.name} has no row {row!r}.{hint} Rows: {', '.join(self.rows)}.")
        return budget, list(rows or self.budgets[budget].rows or self.rows)
