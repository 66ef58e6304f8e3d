# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Short names and import paths find classes; what is unknown is refused with the nearest."""

import pytest
import torch

from pyro_dgm.cli.errors import UsageError
from pyro_dgm.cli.names import PARTS, ROOMS, find, path_of
from pyro_dgm.cli.specs import complete
from pyro_dgm.data import Digits
from pyro_dgm.models import VAE
from pyro_dgm.nn import GatedMLP


@pytest.mark.parametrize(
    ("name", "rooms", "cls"),
    [
        ("VAE", ROOMS["model"], VAE),
        ("pyro_dgm.models.VAE", ROOMS["model"], VAE),
        ("Digits", ROOMS["data"], Digits),
        ("GatedMLP", PARTS, GatedMLP),
        ("Tanh", PARTS, torch.nn.Tanh),
        ("Adamax", ROOMS["optimizer"], torch.optim.Adamax),
        ("StepLR", ROOMS["scheduler"], torch.optim.lr_scheduler.StepLR),
    ],
)
def test_names_find_classes(name, rooms, cls):
    assert find(name, rooms, option="any") is cls


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("VEA", "no class of that name in pyro_dgm.models. Did you mean VAE?"),
        ("pyro_dgm.models.VEA", "pyro_dgm.models has no class VEA. Did you mean VAE?"),
        ("no_such_package.VAE", "cannot import 'no_such_package'"),
    ],
)
def test_an_unknown_class_is_refused_with_the_nearest(name, message):
    with pytest.raises(UsageError) as refused:
        find(name, ROOMS["model"], option="model")
    assert message in str(refused.value)


def test_a_module_that_breaks_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_module_of_mine.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match="importing 'broken_module_of_mine' failed: ZeroDivisionError"):
        find("broken_module_of_mine.Model", ROOMS["model"], option="model")


def test_paths_are_those_that_people_write():
    assert path_of(GatedMLP) == "pyro_dgm.nn.GatedMLP"
    assert path_of(torch.nn.ReLU) == "torch.nn.ReLU"


def test_a_class_is_completed_with_its_own_defaults():
    spec = complete(
        {"class_path": "VAE", "init_args": {"encoder": "GatedMLP"}},
        ROOMS["model"],
        option="model",
        linked=frozenset({"shape", "levels"}),
    )
    assert spec["init_args"]["encoder"] == {"class_path": "pyro_dgm.nn.GatedMLP", "init_args": {"hidden": [300, 300]}}
    assert spec["init_args"]["decoder"]["init_args"] == {
        "hidden": [200, 200],
        "activation": "torch.nn.ReLU",
        "start": "torch",
    }
    assert "shape" not in spec["init_args"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latnt": 3}, "unknown option --model.latnt. Did you mean --model.latent? VAE has: latent, prior"),
        ({"encoder": {"init_args": {"hiden": 3}}}, "unknown option --model.encoder.hiden. Did you mean"),
        ({"encoder": "GatedMPL"}, "--model.encoder GatedMPL: no class of that name in pyro_dgm.nn"),
        ({"shape": [8, 8]}, "--model.shape cannot be set: it comes from the description of the data."),
        ({"prior": 7}, "--model.prior got 7: it needs the name of a class"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest(options, message):
    with pytest.raises(UsageError) as refused:
        complete(
            {"class_path": "VAE", "init_args": options},
            ROOMS["model"],
            option="model",
            linked=frozenset({"shape", "levels"}),
        )
    assert message in str(refused.value)
