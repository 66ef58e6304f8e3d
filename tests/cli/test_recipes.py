# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Recipes are complete, and reproducing one prints published beside measured numbers."""

import json
from pathlib import Path

import pytest
import yaml

from pyro_dgm.cli import job, schema
from pyro_dgm.cli.cookbook import names, parse, read
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.published import Published
from pyro_dgm.cli.table import ResultTable
from pyro_dgm.data import Digits
from pyro_dgm.models import VAE

TINY = """
title: A tiny table
measures: [nll, negative_elbo, kl, bits_per_dim, active_units]
fit:
  data: {class_path: Digits, init_args: {binarization: static}}
  model: {class_path: VAE, init_args: {latent: 2, encoder: {init_args: {hidden: [4]}}}}
  trainer: {tensorboard: false, progress: false}
rows:
  one: {label: The first, published: {nll: {value: 20.5, error: 0.25, source: "a paper, table 1"}}}
  two: {label: The second, fit: {seed: 1}, published: {nll: {value: 20.25, source: hearsay, verified: false}}}
budgets:
  short: {about: one epoch, fit: {trainer: {epochs: 1}}, evaluate: {num_samples: 5, num_data: 20}}
  one: {about: one row, fit: {trainer: {epochs: 1}}, evaluate: {num_samples: 5, num_data: 20}, rows: [one]}
notes: [A note.]
"""


@pytest.fixture
def recipe_file(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize("name", names())
def test_every_row_of_a_recipe_is_a_configuration(name):
    recipe = read(name)
    for budget, parts in recipe.budgets.items():
        first, *others = recipe.choose(budget, [])[1]
        for row in (first, *others):
            for repeat in recipe.repeats_of(budget)[: None if row == first else 1]:
                config = schema.resolve(recipe.config(row, budget, repeat))
                assert schema.dump(schema.resolve(yaml.safe_load(schema.dump(config)))) == schema.dump(config)
        assert parts.evaluate.keys() <= {"num_samples", "elbo_samples", "num_data", "seed"}


@pytest.mark.parametrize("row", list(read("digits").rows))
def test_every_model_of_the_digits_fits_its_data(row):
    parts = schema.instantiate(schema.resolve(read("digits").config(row, "full")))
    assert isinstance(parts.data, Digits)
    assert isinstance(parts.model, VAE)
    assert parts.model.levels == (17 if row in ("categorical", "logistic", "logistic-mixture") else 2)
    assert parts.model.model(parts.data.test.x[:3]).shape == (3, 8, 8)


def test_a_number_that_nobody_looked_up_says_so():
    published = read("sylvester-mnist").rows["vae"].published
    assert str(published["negative_elbo"]) == "86.55 +- 0.06"
    assert "arXiv:1810.01367" in published["negative_elbo"].source
    assert str(published["nll"]) == "82.14 (recalled, unverified)"
    assert str(Published(1.0, "here")) == "1.00"


def test_published_and_measured_stand_side_by_side(recipe_file, say, tmp_path):
    code, out, err = say(f"reproduce {recipe_file} --folder {tmp_path}/out")
    assert code == 0, err
    table = (tmp_path / "out" / "table.md").read_text()
    head, _, first, second = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert head[:3] == ["row", "NLL (IS) published", "NLL (IS) measured"]
    assert head[3:] == ["-ELBO", "KL", "bits/dim", "active units", "epochs", "time"]
    assert first[:2] == ["The first", "20.50 +- 0.25"]
    assert second[:2] == ["The second", "20.25 (recalled, unverified)"]
    assert first[-2] == "1"
    measured = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]["one"]["measured"]
    assert first[2] == f"{measured['test']['nll']['mean']:.2f} +- {measured['test']['nll']['standard_error']:.2f}"
    for text in ("IS, 5 samples, 20 images", "A note.", "Published: a paper, table 1", "The second"):
        assert text in out
    assert (tmp_path / "out" / "two" / "figures" / "samples.png").exists()
    assert str(tmp_path / "out") in out


def test_a_row_that_was_not_run_still_shows_what_was_published(recipe_file):
    table = ResultTable(read(str(recipe_file)), {})
    one, two = (row[1:3] for row in table.rows)
    assert one == ["20.50 +- 0.25", "not run"]
    assert two == ["20.25 (recalled, unverified)", "not run"]
    assert table.footnotes[-2:] == ["Published: a paper, table 1.", "Unverified: hearsay."]
    assert table.as_dict()["rows"]["one"]["measured"] is None


def test_finished_rows_are_kept_and_an_interrupted_one_goes_on(recipe_file, say, tmp_path, monkeypatch):
    done = []
    measure = job.measure

    def press_at_the_second_row(*args, **options):
        done.append(args)
        if len(done) == 2:
            raise KeyboardInterrupt
        return measure(*args, **options)

    monkeypatch.setattr(job, "measure", press_at_the_second_row)
    code, _, err = say(f"reproduce {recipe_file} --budget short --folder {tmp_path}/out")
    assert code == 130
    assert f"continue with: pyro-dgm reproduce --resume {tmp_path}/out" in err
    first = (tmp_path / "out" / "one" / "results.json").stat().st_mtime_ns
    recipe_file.unlink()  # the folder alone is enough
    code, out, err = say(f"reproduce --resume {tmp_path}/out")
    assert code == 0, err
    assert "[1/2] The first: done" in out
    assert len(done) == 3
    assert (tmp_path / "out" / "one" / "results.json").stat().st_mtime_ns == first
    assert (tmp_path / "out" / "table.md").exists()


def test_a_budget_or_a_person_chooses_rows(recipe_file):
    recipe = read(str(recipe_file))
    assert recipe.choose(None, []) == ("short", ["one", "two"])
    assert recipe.choose("one", []) == ("one", ["one"])
    assert recipe.choose("one", ["two"]) == ("one", ["two"])


def test_a_folder_that_exists_is_left_alone(recipe_file, say, tmp_path):
    code, _, err = say(f"reproduce {recipe_file} --folder {tmp_path}")
    assert code == 2
    assert "exists already" in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: A tiny table", "", "not complete .'title'."),
        ("measures: [nll,", "measures: [nlll,", "no measure 'nlll'. Did you mean nll"),
        ("about: one epoch, ", "", "not complete .*about"),
        ("source: hearsay, ", "", "not complete .*source"),
        ("budgets:", "budgets", "is not YAML"),
    ],
)
def test_a_recipe_that_is_not_complete_is_refused(old, new, message):
    assert old in TINY
    with pytest.raises(UsageError, match=message):
        parse("tiny", TINY.replace(old, new))


def test_a_mistake_in_the_last_row_shows_before_the_first_is_run(recipe_file, say, tmp_path):
    recipe_file.write_text(TINY.replace("fit: {seed: 1}", "fit: {sede: 1}"))
    code, _, err = say(f"reproduce {recipe_file} --folder {tmp_path}/out")
    assert code == 2
    assert "unknown option --sede. Did you mean --seed" in err
    assert not (tmp_path / "out").exists()
