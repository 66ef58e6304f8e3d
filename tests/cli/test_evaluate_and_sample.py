# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A trained run is measured and dreams; numbers and pictures go into its folder."""

import json
import re
import shutil

import pytest
from safetensors.torch import load_file


def test_numbers_come_with_unit_estimator_and_error(tiny_run, say):
    code, out, _ = say(f"evaluate {tiny_run} --num_samples 20 --num_data 50")
    assert code == 0
    assert re.search(r"NLL <= \d+\.\d+ \+- \d+\.\d+ nats \(IS, 20 samples, 50 images\)", out)
    assert re.search(r"-ELBO = \d+\.\d+ \+- \d+\.\d+ nats \(MC, 1 sample, 50 images\)", out)
    assert re.search(r"KL\(z\) = ", out)
    assert re.search(r"NLL <= \d\.\d+ \+- \d\.\d+ bits/dim", out)
    assert re.search(r"active units of z: \d of 2", out)


def test_the_same_words_give_the_same_numbers(tiny_run, say):
    line = f"evaluate {tiny_run} --num_samples 5 --num_data 20 --seed 3"
    assert say(line) == say(line)


def test_numbers_are_added_to_the_results(tiny_run, say):
    before = json.loads((tiny_run / "results.json").read_text())
    say(f"evaluate {tiny_run} --split train --num_samples 5 --num_data 20")
    after = json.loads((tiny_run / "results.json").read_text())
    assert after["train"]["nll"]["num_data"] == 20
    assert {key: value for key, value in after.items() if key != "train"} == before


def test_without_samples_there_is_no_nll(tiny_run, say):
    _, out, _ = say(f"evaluate {tiny_run} --num_samples 0")
    assert "NLL" not in out
    assert "bits/dim" in out


def test_too_many_data_are_refused(tiny_run, say):
    code, _, err = say(f"evaluate {tiny_run} --num_data 100000")
    assert code == 2
    assert "num_data=100000 data were asked for and x has 250" in err


def test_a_run_without_checkpoints_is_refused(tiny_run, say, tmp_path):
    shutil.copy(tiny_run / "config.yaml", tmp_path)
    code, _, err = say(f"evaluate {tmp_path}")
    assert code == 2
    assert "holds no checkpoint" in err


def test_samples_are_a_picture_and_numbers(tiny_run, say):
    code, out, _ = say(f"sample {tiny_run} --size 5 --seed 1")
    assert code == 0
    assert out.split() == [str(tiny_run / "samples" / f"seed-1.{kind}") for kind in ("safetensors", "png")]
    drawn = load_file(tiny_run / "samples" / "seed-1.safetensors")
    assert drawn["x"].shape == drawn["mean"].shape == (5, 8, 8)
    assert not drawn["x"].is_floating_point()
    assert 0 <= drawn["x"].min() <= drawn["x"].max() <= 16


def test_another_seed_gives_other_samples(tiny_run, say, tmp_path):
    for seed in (0, 1, 0):
        say(f"sample {tiny_run} --size 3 --seed {seed} --out {tmp_path}/{seed}")
    zero, one = (load_file(tmp_path / f"{seed}.safetensors")["x"] for seed in (0, 1))
    assert not zero.equal(one)


@pytest.mark.parametrize("verb", ["evaluate", "sample"])
def test_a_checkpoint_of_another_model_is_refused(verb, tiny_run, say, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run", symlinks=True)
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("latent: 2", "latent: 3"))
    code, _, err = say(f"{verb} {tmp_path}/run")
    assert code == 2
    assert "is of another model" in err
