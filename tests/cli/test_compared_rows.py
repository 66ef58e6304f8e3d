# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The rows of a recipe are compared datum by datum, repeated, pooled, and run at once without a difference."""

import json

import pytest
import torch

from pyro_dgm.cli import main, values
from pyro_dgm.cli.cookbook import parse
from pyro_dgm.cli.errors import UsageError

PARTS = ("first", "second")
TABLE = """
title: A tiny table
measures: [nll, nll_difference, negative_elbo, negative_elbo_difference, gap, bits_per_dim]
baseline: one
fit:
  data: {class_path: Digits, init_args: {binarization: static}}
  model: {class_path: VAE, init_args: {latent: 2, encoder: {init_args: {hidden: [4]}}}}
  trainer: {tensorboard: false, progress: false, epochs: 1}
  threads: 1
repeats: {first: {seed: 0}, second: {seed: 1}}
rows:
  one: {label: The first}
  two: {label: The second}
  other: {label: Other data, fit: {data: {init_args: {binarization: dynamic}}}}
budgets:
  short:
    about: one epoch
    evaluate: {num_samples: 5, elbo_samples: 3, num_data: 20}
    rows: {one: {}, two: {model: {init_args: {latent: 3}}}, other: {}}
  once:
    about: one repeat of one row
    evaluate: {num_samples: 5, elbo_samples: 3, num_data: 20}
    rows: [one]
    repeats: [second]
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """One recipe run by two processes, and a part of it by one."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "table.yaml").write_text(TABLE)
    for name, options in {"all": "--jobs 2", "once": "--budget once"}.items():
        assert main(["reproduce", f"{folder}/table.yaml", "--folder", f"{folder}/{name}", *options.split()]) == 0
    return folder


def test_rows_that_run_at_once_measure_the_same(tables):
    one, other = (values.read(tables / name / "one" / "second") for name in ("all", "once"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key].values, other[key].values) for key in one)


def test_repeats_are_pooled(tables):
    row = _rows(tables / "all")["one"]["measured"]
    runs = [json.loads((tables / "all" / "one" / name / "results.json").read_text()) for name in PARTS]
    assert runs[0]["test"]["nll"]["mean"] != runs[1]["test"]["nll"]["mean"]
    assert row["test"]["nll"]["mean"] == pytest.approx(sum(run["test"]["nll"]["mean"] for run in runs) / 2)
    assert row["test"]["nll"]["num_data"] == 40
    assert row["epochs"] == 1


def test_rows_are_compared_datum_by_datum(tables):
    rows = {name: row["measured"]["test"] for name, row in _rows(tables / "all").items()}
    kept = {
        name: [values.read(tables / "all" / name / part) for part in ("first", "second")] for name in ("one", "two")
    }
    both = zip(kept["two"], kept["one"], strict=True)
    exact = torch.cat([two["nll"].values - one["nll"].values for two, one in both])
    assert rows["two"]["nll_difference"]["mean"] == pytest.approx(float(exact.mean()))
    assert rows["two"]["nll_difference"]["standard_error"] == pytest.approx(float(exact.std() / 40**0.5))
    assert rows["two"]["negative_elbo_difference"]["standard_error"] < rows["two"]["negative_elbo"]["standard_error"]
    assert "nll_difference" not in rows["one"]
    assert "nll_difference" not in rows["other"]  # other data: no comparison


def test_the_gap_is_the_bound_less_the_likelihood(tables):
    for row in _rows(tables / "all").values():
        test = row["measured"]["test"]
        assert test["gap"]["mean"] == pytest.approx(test["negative_elbo"]["mean"] - test["nll"]["mean"])
        assert "-ELBO of MC, 3 samples less NLL of IS, 5 samples" in test["gap"]["text"]


def test_the_table_says_what_its_columns_are(tables):
    table = (tables / "all" / "table.md").read_text()
    assert "| row | NLL (IS) | NLL vs one | -ELBO | -ELBO vs one | gap | bits/dim | epochs | time |" in table
    assert table.count("vs one: the row's less that of row one, paired datum by datum; below 0 is better.") == 1
    assert "gap: -ELBO less NLL" in table
    assert "| The first |" in table


def test_a_mistake_in_a_row_that_runs_elsewhere_is_one_line(say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.yaml").write_text(TABLE)
    (tmp_path / "broken.yaml").write_text(TABLE.replace("latent: 3", "latent: 0"))
    code, _, err = say("reproduce broken.yaml --folder out --jobs 2")
    assert code == 2
    assert "row two: VAE got shape=(8, 8), levels=2, latent=0" in err
    code, _, err = say("reproduce table.yaml --jobs 0")
    assert "--jobs 0: at least 1 is needed." in err


def test_a_budget_chooses_repeats():
    recipe = parse("table", TABLE)
    assert recipe.repeats_of("short") == ["first", "second"]
    assert recipe.repeats_of("once") == ["second"]
    assert recipe.config("one", "once", "second")["seed"] == 1
    assert recipe.config("two", "short", "first")["model"]["init_args"]["latent"] == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: one", "baseline: oen", "no row 'oen'. Did you mean one"),
        ("repeats: [second]", "repeats: [secnod]", "no repeat 'secnod'. Did you mean second"),
        ("rows: [one]", "rows: [oen]", "no row 'oen'. Did you mean one"),
        ("gap,", "gpa,", "no measure 'gpa'. Did you mean gap"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_nearest(old, new, message):
    assert old in TABLE
    with pytest.raises(UsageError, match=message):
        parse("table", TABLE.replace(old, new))


def _rows(folder):
    return json.loads((folder / "table.json").read_text())["rows"]
