# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures go through the verbs: they start from the data, and their discrete variable has no units but components."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pyro_dgm.cli import main
from pyro_dgm.cli.training import start
from pyro_dgm.data import InMemory
from pyro_dgm.models import VAE, GaussianMixture

RUNS = {
    "normals": "--data BreastCancer --model GaussianMixture --model.dim 30 --model.components 3",
    "coins": "--data Digits --data.binarization dynamic --model BernoulliMixture --model.components 5",
}
NONE = "active units of z: none to count, for it is the number of a category"


@pytest.fixture(scope="module", params=RUNS)
def mixture_run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtures") / request.param
    line = f"fit {RUNS[request.param]} --trainer.epochs 1 --trainer.tensorboard false --threads 1 --folder {folder}"
    assert main(line.split()) == 0
    return folder


def test_fit_ends_with_results_and_pictures(mixture_run):
    found = json.loads((mixture_run / "results.json").read_text())
    assert found["test"]["active_units"]["labels"] == ["z"]
    pictures = {path.stem for path in (mixture_run / "figures").iterdir()}
    images = {"samples", "reconstructions", "components"} if mixture_run.name == "coins" else set()
    assert pictures == {"learning_curve", *images}


def test_the_full_report_is_printed(mixture_run, say):
    code, out, err = say(f"evaluate {mixture_run} --num_samples 3 --num_data 20 --gap_data 5 --report full")
    assert (code, err) == (0, "")
    assert NONE in out
    assert "gap = " in out
    assert "not measured" not in out
    report = json.loads((mixture_run / "results.json").read_text())["test"]["report"]
    assert abs(report["gaps"]["inference"]["mean"]) < 1e-3, "the guide is the exact posterior"


def test_it_dreams(mixture_run, say):
    code, out, _ = say(f"sample {mixture_run} --size 4")
    assert code == 0
    drawn = load_file(out.split()[0])
    assert drawn["x"].shape == drawn["mean"].shape == ((4, 30) if mixture_run.name == "normals" else (4, 8, 8))


def test_fit_says_that_it_starts_from_the_data_and_a_resumed_run_does_not(say, tmp_path):
    line = f"fit {RUNS['normals']} --trainer.tensorboard false --threads 1 --folder {tmp_path / 'run'}"
    _, _, err = say(f"{line} --trainer.epochs 1")
    assert "start: GaussianMixture.start(training data, seed=0)\n" in err
    code, _, err = say(f"fit --resume {tmp_path / 'run'} --trainer.epochs 2")
    assert code == 0
    assert "start:" not in err


def test_a_start_is_for_models_that_have_one():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    data, mixture = InMemory(x, levels=None), GaussianMixture(dim=2, components=2)
    other = VAE(shape=(2,), levels=2, latent=1)
    assert start(mixture, data, seed=3)
    assert not start(other, data, seed=3)
    same = GaussianMixture(dim=2, components=2)
    same.start(data.train.x, seed=3)
    assert all(one.equal(two) for one, two in zip(mixture.parameters(), same.parameters(), strict=True))
    other.start = lambda: None  # something else of that name
    assert not start(other, data, seed=3)


def test_a_posterior_over_parameters_is_for_other_tools(say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = say("fit --data BreastCancer --model BayesianMixture --model.dim 30 --model.components 2")
    assert code == 2
    assert "pyro_dgm.infer.CoordinateAscent" in err
    assert "pyro-dgm compare gmm --methods mean_field" in err
    assert len(err.splitlines()) == 1
