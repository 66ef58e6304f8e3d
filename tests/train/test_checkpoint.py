# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint gives back what was put in, and refuses what is damaged or of another model."""

import json
import re

import pytest
import torch
from torch import nn

from pyro_dgm.train import Checkpoint, CheckpointError, load_weights
from pyro_dgm.train.checkpoints import Checkpoints

STATE = {"number": 0.1, "tensor": torch.arange(3), "nested": {1: (2, None)}}


@pytest.fixture
def saved(tmp_path) -> Checkpoint:
    return Checkpoint.write(tmp_path / "step-00000007", nn.Linear(2, 3), STATE)


class Odd(nn.Module):
    """Weights that share memory, are not contiguous, or are no floats."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.c = nn.Parameter(torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last))
        self.register_buffer("row", torch.randn(4, 3)[:, 1])
        self.register_buffer("flag", torch.tensor(True))
        self.register_buffer("none", torch.empty(0))


def test_weights_and_state_come_back_to_the_bit(tmp_path):
    module, other = Odd(), Odd()
    state = Checkpoint.write(tmp_path / "c", module, STATE).restore(other)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
    assert other.a.weight is other.b.weight
    assert torch.equal(state.pop("tensor"), STATE["tensor"])
    assert state == {"number": 0.1, "nested": {1: (2, None)}}


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["missing", "empty", "short", "flipped"])
def test_every_damage_is_noticed(saved, name, harm):
    path = saved.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    half = path.read_bytes()[: len(content) // 2]
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "short": half, "flipped": bytes(content)}[harm])
    assert str(saved.path) in saved.problem()
    with pytest.raises(CheckpointError, match=name if harm != "flipped" else "checksum|be read"):
        saved.restore(nn.Linear(2, 3))


def test_a_good_one_has_no_problem(saved):
    assert saved.problem() is None


def test_another_models_is_refused_with_the_entries_that_differ(saved):
    with pytest.raises(CheckpointError, match="of another model") as caught:
        saved.restore(nn.Linear(2, 4))
    assert "weight: float32 3x2 saved, float32 4x2 here" in str(caught.value)
    assert "bias: float32 3 saved, float32 4 here" in str(caught.value)


def test_other_classes_with_the_same_shapes_are_refused(tmp_path):
    saved = Checkpoint.write(tmp_path / "c", nn.Sequential(nn.Linear(2, 2), nn.ReLU()), {})
    with pytest.raises(CheckpointError, match=r"module 1: .*ReLU saved, .*Tanh here"):
        saved.restore(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))


def test_another_dtype_is_refused_when_continuing_but_not_when_evaluating(saved):
    module = nn.Linear(2, 3).double()
    with pytest.raises(CheckpointError, match="weight: float32 3x2 saved, float64 3x2 here"):
        saved.restore(module)
    load_weights(saved.path, module)
    assert torch.equal(module.weight.float(), saved.weights()["weight"])


def test_only_five_differences_are_listed(tmp_path):
    saved = Checkpoint.write(tmp_path / "c", nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]), {})
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        saved.restore(nn.Linear(1, 1))


def test_another_version_is_refused(saved):
    path = saved.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2, "pyro_dgm": "9.9"}))
    for act in (saved.problem, saved.weights, lambda: Checkpoints(saved.path.parent).latest()):
        with pytest.raises(CheckpointError, match=re.escape("format version 2 (written by pyro_dgm 9.9)")):
            act()


def test_a_state_that_is_no_tensor_is_refused(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return object()

    with pytest.raises(TypeError, match="_extra_state is a object: only tensors"):
        Checkpoint.write(tmp_path / "c", Extra(1, 1), {})
    assert list(tmp_path.iterdir()) == []


def test_load_weights_prefers_the_best_then_the_averaged_then_the_last(tmp_path):
    run, module = Checkpoints(tmp_path / "checkpoints"), nn.Linear(1, 1, bias=False)
    values = {"weights": 1.0, "averaged": 2.0, "best": 3.0}
    weights = {name: {"weight": torch.full((1, 1), value)} for name, value in values.items()}
    module.load_state_dict(weights.pop("weights"))
    for step, (copies, expected) in enumerate([(("averaged", "best"), 3.0), (("averaged",), 2.0), ((), 1.0)]):
        run.save(step, module, {}, {name: weights[name] for name in copies})
        other = nn.Linear(1, 1, bias=False)
        assert load_weights(tmp_path, other).path.name == f"step-{step:08d}"
        assert other.weight.item() == expected
    load_weights(tmp_path / "checkpoints" / "step-00000001", other, best=False)
    assert other.weight.item() == 2.0


def test_load_weights_says_what_is_missing_or_damaged(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        load_weights(tmp_path / "nowhere", nn.Linear(2, 3))
    (saved.path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(saved.path, nn.Linear(2, 3))
