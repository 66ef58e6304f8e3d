# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows of images go through the whole command line: fit, evaluate, sample at a temperature, and their recipes."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from pyro_dgm.cli import main, schema
from pyro_dgm.cli.cookbook import read
from pyro_dgm.cli.figures import draw_all
from pyro_dgm.data import InMemory
from pyro_dgm.distributions import VariationalDequantizer
from pyro_dgm.models import ImageFlow
from pyro_dgm.train import History
from pyro_dgm.transforms import ActNorm, Glow

NET = "--model.flow.net ConvNet --model.flow.net.hidden [4] --model.flow.net.kernels [3,3]"
TINY = (
    f"--data Digits --data.binarization none --model ImageFlow --model.flow Glow --model.flow.scales 2 "
    f"--model.flow.depth 1 {NET} --model.dequantizer VariationalDequantizer --model.dequantizer.depth 2 "
    f"--model.dequantizer.context 2 --batch_size 400 --trainer.epochs 1 --trainer.tensorboard false --threads 1"
)


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "flow"
    assert main(["fit", *TINY.split(), "--folder", str(folder)]) == 0
    return folder


def test_fit_measures_bits_and_draws_dreams(image_run):
    results = json.loads((image_run / "results.json").read_text())
    assert results["test"]["negative_elbo_bits_per_dim"]["mean"] < 4.09
    assert "active_units" not in results["test"]
    names = {path.name for path in (image_run / "figures").iterdir()}
    assert names == {"interpolation.png", "learning_curve.png", "samples.png", "temperatures.png"}


def test_few_test_images_make_few_paths(tmp_path):
    x = torch.randint(0, 17, (7, 8, 8))
    data = InMemory(x, valid=x[:3], test=x[:5], levels=17)
    history = History(epochs=[{"epoch": epoch, "train.loss": 9.0, "valid.loss": 9.0} for epoch in (1, 2)])
    model = ImageFlow(shape=(8, 8), levels=17, flow=partial(Glow, scales=1, depth=1)).eval()
    assert draw_all(model, data, tmp_path, history, warmup_end=None) == []
    assert (tmp_path / "interpolation.png").exists()


def test_evaluate_says_bits_and_the_gap(image_run, say):
    code, out, err = say(f"evaluate {image_run} --num_samples 5 --num_data 20")
    assert code == 0, err
    for text in ("NLL <=", "bits/dim", "KL(v) =", "gap ="):
        assert text in out
    assert "active units" not in out


def test_a_temperature_is_for_dreams(image_run, tiny_run, say):
    code, out, err = say(f"sample {image_run} --size 4 --temperature 0.5")
    assert code == 0, err
    stem = image_run / "samples" / "seed-0-temperature-0.5"
    assert out.split() == [f"{stem}.safetensors", f"{stem}.png"]
    drawn = load_file(f"{stem}.safetensors")
    assert (drawn["x"] == drawn["mean"]).all()
    assert say(f"sample {image_run} --temperature 0")[0] == 2
    code, _, err = say(f"sample {tiny_run} --temperature 0.5")
    assert code == 2
    assert "VAE has none; pyro_dgm.models.ImageFlow has" in err


@pytest.mark.parametrize("name", ["image-flows-digits", "image-flows-mnist"])
def test_the_recipes_make_their_models(name):
    recipe = read(name)
    for row in recipe.rows:
        config = schema.resolve(recipe.config(row, "full"))
        options = config.model.init_args
        assert config.model.class_path == "pyro_dgm.models.ImageFlow"
        assert options.flow.class_path.rpartition(".")[2].lower() == row.partition("-")[0]
        assert options.dequantizer.class_path.startswith("pyro_dgm.distributions.")
        if name.endswith("digits"):  # the other one would download its data
            model = schema.instantiate(config).model
            assert isinstance(model, ImageFlow)
            assert isinstance(model.dequantizer, VariationalDequantizer) == row.endswith("variational")
            assert isinstance(model.flow, Glow) == row.startswith("glow")
            assert any(isinstance(module, ActNorm) for module in model.modules())


def test_published_numbers_name_their_table():
    rows = read("image-flows-mnist").rows
    published = {name: row.published for name, row in rows.items() if row.published}
    assert {name: entry["negative_elbo_bits_per_dim"].value for name, entry in published.items()} == {
        "realnvp": 1.06,
        "glow": 1.05,
    }
