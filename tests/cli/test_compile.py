# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""``fit --compile``: the same run, sooner; and when it is chosen by itself."""

import json
import re
import shutil

import pytest
import torch
import yaml

from pyro_dgm.cli import compilation
from pyro_dgm.cli.compilation import ENOUGH, compiles
from tests.cli.conftest import TINY

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:.*is recorded and not compiled")  # where there is no C++ compiler
def test_a_compiled_run_ends_where_the_other_ends(say, tmp_path):
    ends = {}
    for words in ("--compile", "--compile false"):
        folder = tmp_path / words.replace(" ", "_")
        code, _, err = say(f"fit {TINY} --folder {folder} {words}")
        assert code == 0, err
        ends[words] = json.loads((folder / "results.json").read_text())["test"]
        assert yaml.safe_load((folder / "config.yaml").read_text())["compile"] is (words == "--compile")
    numbers = [[float(word) for word in re.findall(r"\d+\.\d+", json.dumps(end))] for end in ends.values()]
    assert len(numbers[0]) > 3
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


def test_long_runs_on_a_cpu_are_compiled_where_there_is_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert compiles("auto", steps=ENOUGH, device=CPU, processes=1)
    assert not compiles("auto", steps=ENOUGH - 1, device=CPU, processes=1)
    assert not compiles("auto", steps=ENOUGH, device=CPU, processes=2)
    assert not compiles("auto", steps=ENOUGH, device=torch.device("cuda"), processes=1)
    assert not compiles(False, steps=ENOUGH, device=CPU, processes=1)
    assert compiles(True, steps=1, device=torch.device("cuda"), processes=2)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert not compiles("auto", steps=ENOUGH, device=CPU, processes=1)


def test_the_switch_has_three_positions(say):
    for words, shown in {"": "auto", "--compile": "true", "--compile=false": "false", "--compile auto": "auto"}.items():
        code, out, _ = say(f"fit --data Digits {words} --print_config")
        assert (code, f"compile: {shown}\n" in out) == (0, True)
    code, _, err = say("fit --data Digits --compile maybe --print_config")
    assert (code, "--compile" in err) == (2, True)
