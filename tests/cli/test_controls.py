# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Controls of the KL and schedules from the command line and from YAML."""

import json
import math

import pytest
import yaml

from pyro_dgm.cli import schema
from pyro_dgm.cli.cookbook import parse
from pyro_dgm.cli.layers import tree
from pyro_dgm.infer import Capacity, FreeBits, SiteWeights

DATA = "--data Digits --data.binarization static --model.latent 3 --model.encoder.hidden [8] --model.decoder.hidden [8]"
QUICK = f"{DATA} --trainer.epochs 2 --trainer.tensorboard false --threads 1"


def test_free_bits_by_words_train_and_are_judged_without_them(say, tmp_path):
    words = f"--bound ELBO --bound.kl FreeBits --bound.kl.nats 9 --bound.kl.per dimension --folder {tmp_path}/run"
    code, _, err = say(f"fit {QUICK} {words}")
    assert code == 0, err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["bound"]["init_args"]["kl"] == {
        "class_path": "pyro_dgm.infer.FreeBits",
        "init_args": {"nats": 9, "per": "dimension", "over": "batch"},
    }
    results = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    total = results["reconstruction"]["mean"] + results["kl"]["mean"]
    assert results["negative_elbo"]["mean"] == pytest.approx(total)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    trained = float([row["loss"] for row in table if row["split"] == "train"][-1])
    judged = float([row["loss"] for row in table if row["split"] == "valid"][-1])
    assert trained > judged + 10, "27 nats are charged in training, and not in validation"


def test_a_capacity_and_a_cyclic_schedule_by_words(say, tmp_path):
    words = "--bound.kl Capacity --bound.kl.nats 4 --bound.kl.weight 10 --trainer.capacity_epochs 2"
    words += f" --trainer.warmup_epochs 2 --trainer.warmup_shape cyclic --trainer.warmup_cycles 1 --folder {tmp_path}/r"
    code, _, err = say(f"fit {QUICK} {words}")
    assert code == 0, err
    lines = (tmp_path / "r" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [float(row["capacity"]) for row in table if row["split"] == "train"][0] == 2.0
    assert [float(row["capacity"]) for row in table if row["split"] == "train"][-1] == 4.0
    assert all(math.isfinite(float(row["loss"])) for row in table)


def test_a_control_in_yaml_becomes_an_object():
    for text, expected in (
        ("{class_path: ELBO, init_args: {kl: {class_path: FreeBits, init_args: {nats: 0.25}}}}", FreeBits),
        ("{class_path: ELBO, init_args: {kl: Capacity}}", Capacity),
        ("{class_path: ELBO, init_args: {kl: {class_path: SiteWeights, init_args: {weights: {z: 4.0}}}}}", SiteWeights),
    ):
        config = schema.resolve(
            yaml.safe_load(
                f"data: {{class_path: Digits}}\nmodel: {{init_args: {{likelihood: "
                f"CategoricalLikelihood}}}}\nbound: {text}\n"
            )
        )
        assert type(schema.instantiate(config).bound.kl) is expected


def test_a_weight_of_each_site_by_words():
    words = [("data", "Digits"), ("model.likelihood", "CategoricalLikelihood"), ("bound.kl", "SiteWeights")]
    config = schema.resolve(tree([*words, ("bound.kl.weights", '{"z": 4}')]))
    assert schema.instantiate(config).bound.kl.weights == {"z": 4}


def test_a_control_for_a_bound_that_has_none_is_refused(say):
    code, _, err = say("fit --data Digits --bound IWAE --bound.kl FreeBits --print_config")
    assert code == 2
    assert "unknown option --bound.kl. IWAE has:" in err


def test_what_a_control_refuses_is_said_in_one_line(say, tmp_path):
    code, _, err = say(f"fit {QUICK} --bound.kl FreeBits --bound.kl.nats -1 --folder {tmp_path}/run")
    assert code == 2
    assert err.splitlines()[-1].startswith("pyro-dgm fit: error: FreeBits got nats=-1")


def test_the_options_of_a_control_are_described(say):
    _, out, _ = say("fit --bound.kl.help FreeBits")
    assert "--bound.kl.nats" in out
    assert "--bound.kl.per" in out


def test_a_row_of_a_recipe_has_a_control():
    text = """
title: Two ways to keep the latents
measures: [negative_elbo, kl]
fit:
  data: {class_path: Digits, init_args: {binarization: static}}
  bound: {class_path: ELBO, init_args: {num_particles: 2}}
rows:
  plain: {label: The ELBO}
  free: {label: Free bits, fit: {bound: {init_args: {kl: {class_path: FreeBits, init_args: {nats: 0.5}}}}}}
budgets:
  short: {about: one epoch, fit: {trainer: {epochs: 1}}, evaluate: {num_samples: 5, num_data: 20}}
"""
    recipe = parse("controls", text)
    made = {row: schema.instantiate(schema.resolve(recipe.config(row, "short"))) for row in ("plain", "free")}
    assert made["plain"].bound.kl is None
    assert (made["free"].bound.kl.nats, made["free"].bound.num_particles) == (0.5, 2)
