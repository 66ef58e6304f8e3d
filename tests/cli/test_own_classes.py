# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A model, a data set and a network of the user's own go in by their import paths, and nothing is registered."""

import json

import pytest
import yaml

OWN = '''
"""What a user writes."""
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn
from pyro_dgm.data import Dataset, Split

class Bars(Dataset):
    """Images with one white row."""

    def __init__(self, *, side: int = 4) -> None:
        x = torch.eye(side, dtype=torch.uint8)[:, :, None].expand(side, side, side).repeat(10, 1, 1)
        super().__init__(name="Bars", grey_levels=2, train=Split(x), valid=Split(x[:8]), test=Split(x[:8]))

class Coins(PyroModule):
    """One latent variable, under another name, and no parameter called shape or levels."""

    def __init__(self, *, pixels: int = 16, net: type[nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.to_x, self.to_u = net(2, pixels), net(pixels, 4)

    def model(self, x=None, *, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = self.to_x(u).unflatten(-1, (4, 4))
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(2), obs=None if x is None else x.float())

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, scale = self.to_u(x.float().flatten(1)).chunk(2, -1)
            return pyro.sample("u", dist.Normal(loc, scale.exp()).to_event(1))

class Shaped(Coins):
    """Wants to know the shape of the data, and not their levels."""

    def __init__(self, *, shape: tuple[int, ...], extra: int = 0) -> None:
        super().__init__(pixels=shape[0] * shape[1])

class Wide(nn.Module):
    """A network of the user's own."""

    def __init__(self, in_shape, out_shape, *, width: int = 5) -> None:
        super().__init__()
        self.out_shape = out_shape
        sizes = [torch.Size(in_shape).numel(), width, torch.Size(out_shape).numel()]
        self.first, self.last = nn.Linear(sizes[0], sizes[1]), nn.Linear(sizes[1], sizes[2])

    def forward(self, x):
        return self.last(self.first(x.flatten(-2)).tanh()).unflatten(-1, self.out_shape)
'''
SHORT = "--batch_size 10 --trainer.epochs 1 --trainer.tensorboard false --folder run"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    (tmp_path / "own_classes_of_a_user.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("model", ["Coins", "Shaped"])
def test_model_and_data_of_ones_own(model, say, place):
    own = "own_classes_of_a_user"
    code, out, err = say(f"fit --data {own}.Bars --data.side 4 --model {own}.{model} {SHORT}")
    assert code == 0, err
    config = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert config["model"]["class_path"] == f"{own}.{model}"
    assert config["data"] == {"class_path": f"{own}.Bars", "init_args": {"side": 4}}
    assert "active units of u" in out
    code, out, err = say("evaluate run --num_samples 10")
    assert code == 0, err
    assert "KL(u)" in out
    assert say("sample run --size 4")[0] == 0
    assert json.loads((place / "run" / "results.json").read_text())["test"]["active_units"]["units"] == {"u": 2}


def test_a_class_that_is_an_option_goes_in_by_its_short_name(say):
    _, out, _ = say("fit --data Digits --model own_classes_of_a_user.Coins --model.net Bilinear --print_config")
    assert yaml.safe_load(out)["model"]["init_args"]["net"] == "torch.nn.Bilinear"


def test_a_network_of_ones_own_in_a_vae(say, place):
    words = "--model.encoder own_classes_of_a_user.Wide --model.encoder.width 3 --model.latent 2"
    code, _, err = say(f"fit --data own_classes_of_a_user.Bars {words} {SHORT}")
    assert code == 0, err
    config = yaml.safe_load((place / "run" / "config.yaml").read_text())
    assert config["model"]["init_args"]["encoder"]["init_args"] == {"width": 3}


def test_a_class_of_the_wrong_kind_is_refused(say):
    code, _, err = say("fit --data own_classes_of_a_user.Coins --folder run")
    assert code == 2
    assert "--data" in err
    assert "Dataset" in err
