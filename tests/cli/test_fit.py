# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""`fit` writes a run folder from words and YAML, and a resolved configuration gives itself back."""

import json
import math

import pytest
import torch
import yaml

from pyro_dgm.cli import schema
from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.layers import tree
from pyro_dgm.cli.run_folder import RunFolder


def test_a_run_folder_is_complete(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert {"config.yaml", "metrics.csv", "checkpoints", "figures", "results.json"} <= names
    pictures = {path.name for path in (tiny_run / "figures").iterdir()}
    assert pictures == {f"{n}.png" for n in ("samples", "reconstructions", "traversal", "latent", "learning_curve")}


def test_results_are_numbers_with_their_estimator(tiny_run):
    results = json.loads((tiny_run / "results.json").read_text())
    assert results["epochs"] == 1
    assert results["seconds"]["fit"] > 0
    for split in ("valid", "test"):
        assert results[split]["negative_elbo"]["unit"] == "nats"
        assert math.isfinite(results[split]["negative_elbo"]["mean"])
        assert results[split]["negative_elbo"]["num_data"] == 250


def test_a_resolved_configuration_gives_itself_back(tiny_run):
    text = (tiny_run / "config.yaml").read_text()
    again = schema.dump(schema.resolve(yaml.safe_load(text)))
    assert yaml.safe_load(again) == yaml.safe_load(text)


def test_printed_configuration_is_that_of_the_words(say, tmp_path):
    words = "--data Digits --bound IWAE --bound.num_particles 5 --optimizer Adamax --model.encoder GatedMLP"
    code, out, _ = say(f"fit {words} --scheduler StepLR --scheduler.step_size 3 --clip_norm 1e1 --print_config")
    assert code == 0
    config = yaml.safe_load(out)
    assert config["bound"]["class_path"] == "pyro_dgm.infer.IWAE"
    assert config["bound"]["init_args"]["num_particles"] == 5
    assert config["optimizer"]["init_args"]["lr"] == 2e-3, "Adamax's own default, not the one given to Adam"
    assert config["model"]["init_args"]["encoder"]["init_args"]["hidden"] == [300, 300], "not those of the MLP"
    assert config["scheduler"]["init_args"]["step_size"] == 3
    assert config["clip_norm"] == 10.0
    (tmp_path / "config.yaml").write_text(out)
    assert say(f"fit --config {tmp_path}/config.yaml --print_config") == (0, out, "")


def test_words_win_over_yaml_and_later_yaml_over_earlier(say, tmp_path):
    (tmp_path / "one.yaml").write_text("data: Digits\nbatch_size: 10\nseed: 1\nmodel: {init_args: {latent: 3}}\n")
    (tmp_path / "two.yaml").write_text("seed: 2\noptimizer: {init_args: {lr: 1e-2}}\n")
    _, out, _ = say(f"fit --config {tmp_path}/one.yaml --config {tmp_path}/two.yaml --batch_size 20 --print_config")
    config = yaml.safe_load(out)
    assert (config["batch_size"], config["seed"], config["model"]["init_args"]["latent"]) == (20, 2, 3)
    assert config["optimizer"]["init_args"]["lr"] == 1e-2


def test_null_takes_an_option_back(say, tmp_path):
    (tmp_path / "one.yaml").write_text("data: Digits\nclip_norm: 1.0\nscheduler: {class_path: ConstantLR}\n")
    _, out, _ = say(f"fit --config {tmp_path}/one.yaml --clip_norm null --scheduler null --print_config")
    config = yaml.safe_load(out)
    assert config["clip_norm"] is config["scheduler"] is None


@pytest.mark.parametrize("text", ["[1, 2]", "data: [", ""])
def test_what_is_no_configuration_is_refused(text, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        schema.load(tmp_path / "bad.yaml")


def test_an_unknown_key_in_yaml_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown option --modle. Did you mean --model?"):
        schema.resolve({"modle": "VAE"})


def test_a_folder_that_exists_is_left_alone(tiny_run, say):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    code, _, err = say(f"fit --data Digits --folder {tiny_run}")
    assert code == 2
    assert f"{tiny_run} exists already" in err
    assert f"--resume {tiny_run}" in err
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_a_default_folder_says_what_is_in_it():
    path = RunFolder.new(None, schema.resolve(tree([("data", "Digits")]))).path
    assert path.parent.name == "runs"
    assert path.name.startswith("digits-vae-")


def test_a_scheduler_by_name_moves_the_learning_rate(say, tmp_path):
    words = "--data Digits --data.binarization static --model.latent 2 --model.encoder.hidden [4]"
    words += " --scheduler StepLR --scheduler.step_size 1 --trainer.epochs 2 --trainer.tensorboard false"
    assert say(f"fit {words} --folder {tmp_path}/run")[0] == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    lr = rows[0].split(",").index("lr")
    assert {float(row.split(",")[lr]) for row in rows[1:] if row.split(",")[lr]} == {1e-3, 1e-4}


def test_threads_are_given_back(say, tmp_path):
    before = torch.get_num_threads()
    say(f"fit --data Digits --threads {before + 1} --trainer.epochs 0 --folder {tmp_path}/run")
    assert torch.get_num_threads() == before


def test_a_part_that_does_not_fit_the_data_says_so_in_one_line(say, tmp_path):
    code, _, err = say(f"fit --data Digits --trainer.epochs 1 --folder {tmp_path / 'run'}")
    assert code == 2
    assert err.startswith("pyro-dgm fit: error: BernoulliLikelihood got levels=17: it needs data of 2 levels.")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
