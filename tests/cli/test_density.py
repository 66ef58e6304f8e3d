# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A table of real numbers and a flow go through the command line, in nats, and what does not fit is said."""

import json

import pytest
import yaml
from safetensors.torch import load_file

FLOW = "--model FlowModel --model.flow Stack --model.flow.flow AffineCoupling --model.flow.depth 2"
SHORT = "--trainer.epochs 1 --trainer.tensorboard false --folder run"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_from_fit_to_samples(say, place):
    code, out, err = say(f"fit --data BreastCancer {FLOW} --model.flow.between random {SHORT}")
    assert code == 0, err
    assert "test: -ELBO = " in out
    assert "exact" in out
    assert "active units" not in out
    assert sorted(path.name for path in (place / "run" / "figures").iterdir()) == ["learning_curve.png"]
    config = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert (
        config["model"]["init_args"]["flow"]["init_args"]["flow"]["class_path"] == "pyro_dgm.transforms.AffineCoupling"
    )
    code, out, err = say("evaluate run --split valid")
    assert code == 0, err
    assert "NLL = " in out
    assert "(exact, 51 data)" in out
    assert "bits/dim" not in out
    results = json.loads((place / "run" / "results.json").read_text())
    assert "standardised by train" in results["data"]
    assert set(results["valid"]) == {"nll", "negative_elbo", "reconstruction"}
    code, out, err = say("sample run --size 3")
    assert code == 0, err
    assert "has no mean" in err
    drawn = load_file(place / "run" / "samples" / "seed-0.safetensors")
    assert {name: value.shape for name, value in drawn.items()} == {"x": (3, 30)}


def test_a_file_of_ones_own(say, place):
    rows = "\n".join(f"{i % 7 / 3};{(i * i) % 11 / 5};{i}" for i in range(60))
    (place / "mine.csv").write_text(f"height;weight;number\n{rows}\n")
    data = "--data TableFile --data.path mine.csv --data.drop [number] --data.seed 1 --batch_size 20"
    code, out, err = say(f"fit {data} --model FlowModel --model.flow LULinear {SHORT}")
    assert code == 0, err
    assert "mine: 2, real numbers" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data BreastCancer", "the model wants to know the levels of the data, and BreastCancer has none"),
        (f"--data Digits {FLOW} --model.flow.between random", "Dequantise"),
        (f"--data BreastCancer {FLOW} --model.shape [3]", "comes from the description of the data"),
        (f"--data BreastCancer {FLOW} --batch_size 463", "got 462 data"),
    ],
)
def test_what_does_not_fit_is_said(say, words, message):
    code, _, err = say(f"fit {words} {SHORT}")
    assert code == 2
    assert message in err


def test_they_are_listed(say):
    _, out, _ = say("list")
    for name in ("BreastCancer", "FlowModel", "MiniBooNE", "TableFile", "WineQuality"):
        assert f"  {name}  " in out
    _, out, _ = say("fit --data.help TableFile")
    assert "--data.drop" in out
