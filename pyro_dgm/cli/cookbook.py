# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Read recipes: those of the package by their names, your own by their paths."""

from collections.abc import Collection, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pyro_dgm.cli.errors import UsageError, nearest
from pyro_dgm.cli.published import Published
from pyro_dgm.cli.recipe import Budget, Recipe, Row
from pyro_dgm.cli.table import MEASURES

FOLDER = files("pyro_dgm") / "recipes"


def read(name: str) -> Recipe:
    """Read a recipe by its name, or a file of your own by its path.

    Raises:
        UsageError: If there is none, with the nearest that is, or it is not a recipe.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UsageError(f"there is no recipe file {path}.")
        return parse(path.stem, path.read_text())
    known = names()
    if name not in known:
        raise UsageError(
            f"there is no recipe {name!r}.{nearest(name, known)} Recipes: {', '.join(known)}. A recipe of your own "
            f"goes in as a path, e.g. {name}.yaml."
        )
    return parse(name, (FOLDER / f"{name}.yaml").read_text())


def parse(name: str, text: str) -> Recipe:
    """Make a recipe from YAML.

    Raises:
        UsageError: If the YAML is not a recipe; the message says which entry is wrong.
    """
    try:
        tree: dict[str, Any] = yaml.safe_load(text)
        recipe = Recipe(
            name=name,
            title=tree["title"],
            measures=tuple(tree["measures"]),
            fit=tree["fit"],
            rows={key: _row(parts) for key, parts in tree["rows"].items()},
            budgets={key: _budget(parts) for key, parts in tree["budgets"].items()},
            notes=tuple(tree.get("notes") or ()),
            text=text,
            baseline=tree.get("baseline"),
            repeats=tree.get("repeats") or {},
        )
    except yaml.YAMLError as error:
        raise UsageError(f"recipe {name} is not YAML: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"recipe {name} is not complete ({error}): it needs title, measures, fit, rows (each with a label, and fit "
            f"and published where there are any) and budgets (each with about). See pyro_dgm/recipes/digits.yaml."
        ) from error
    _check(recipe)
    return recipe


def names() -> list[str]:
    """The recipes of the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in FOLDER.iterdir() if entry.name.endswith(".yaml"))


def _row(parts: dict[str, Any]) -> Row:
    published = {key: Published(**entry) for key, entry in (parts.get("published") or {}).items()}
    return Row(**{**parts, "published": published})


def _budget(parts: dict[str, Any]) -> Budget:
    rows = parts.get("rows") or {}
    rows = {key: (rows[key] if isinstance(rows, dict) else None) or {} for key in rows}
    return Budget(**{**parts, "rows": rows, "repeats": tuple(parts.get("repeats") or ())})


def _check(recipe: Recipe) -> None:
    """Refuse the name of a measure, row or repeat that is not there."""
    budgets = recipe.budgets.values()
    published = (key for row in recipe.rows.values() for key in row.published)
    rows = [row for budget in budgets for row in budget.rows]
    named: dict[str, tuple[Iterable[str], Collection[str]]] = {
        "measure": ((*recipe.measures, *published), MEASURES),
        "row": (rows if recipe.baseline is None else [recipe.baseline, *rows], recipe.rows),
        "repeat": ([repeat for budget in budgets for repeat in budget.repeats], recipe.repeats),
    }
    for what, (used, known) in named.items():
        for name in used:
            if name not in known:
                hint = nearest(name, known)
                raise UsageError(
                    f"recipe {recipe.name} has no {what} {name!r}.{hint} {what.capitalize()}s: {', '.join(known)}."
                )
