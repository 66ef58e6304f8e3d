# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted and continued is the run that was not, to the bit."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from pyro_dgm.train import CheckpointError, History, Interrupted, load_weights
from tests.train.tiny import TinyFeed, TinyStep, rows, tiny_trainer, tiny_validation


def train(folder: Path, *, stop: int | None = None, seed: int = 1, resume: bool = False, **options):
    """Train, and press Ctrl-C in some step of this session."""
    step = TinyStep(seed)
    step.before = lambda number: signal.raise_signal(signal.SIGINT) if number == stop else None
    trainer = tiny_trainer(**options)
    history = trainer.fit(step, TinyFeed(), folder=folder, validate=tiny_validation(step), resume=resume)
    return history, step


def weights(folder: Path, *, best: bool = True) -> dict[str, torch.Tensor]:
    module = TinyStep(5).module
    load_weights(folder, module, best=best)
    return module.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Path, History, TinyStep]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return folder, *train(folder)


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 11, 18, 19])
def test_interrupted_at_any_step_it_ends_the_same(tmp_path, uninterrupted, stop):
    folder, history, step = uninterrupted
    with pytest.raises(Interrupted, match=rf"after step {stop}\. Its state is saved in .*step-{stop:08d}") as caught:
        train(tmp_path / "run", stop=stop)
    assert caught.value.exit_code == 130
    assert caught.value.step == stop
    torch.rand(3)
    again, other = train(tmp_path / "run", seed=7, resume=True)
    assert again == history
    assert same(other.module.state_dict(), step.module.state_dict())
    assert rows(tmp_path / "run") == rows(folder)
    for best in (True, False):
        assert same(weights(tmp_path / "run", best=best), weights(folder, best=best))


@pytest.mark.parametrize("options", [{"ema": None}, {"warmup_epochs": None, "warmup_steps": 6}, {"log_every": 50}])
def test_it_does_so_with_other_options(tmp_path, options):
    history, step = train(tmp_path / "a", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "b", stop=6, **options)
    again, other = train(tmp_path / "b", seed=7, resume=True, **options)
    assert again == history
    assert same(other.module.state_dict(), step.module.state_dict())
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_interrupted_in_the_last_step_it_is_finished(tmp_path, uninterrupted):
    history, step = train(tmp_path / "run", stop=20)
    assert history == uninterrupted[1]


def test_interrupted_again_and_again(tmp_path, uninterrupted):
    for resume in (False, *[True] * 5):
        with pytest.raises(Interrupted):
            train(tmp_path / "run", stop=3, seed=9, resume=resume) if resume else train(tmp_path / "run", stop=3)
    history, step = train(tmp_path / "run", resume=True)
    assert history == uninterrupted[1]
    assert rows(tmp_path / "run") == rows(uninterrupted[0])


def test_a_damaged_checkpoint_costs_steps_but_no_bits(tmp_path, uninterrupted):
    with pytest.raises(Interrupted):
        train(tmp_path / "run", stop=13, checkpoint_every_steps=5)
    (tmp_path / "run" / "checkpoints" / "step-00000013" / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="step-00000013 is damaged and passed over"):
        history, step = train(tmp_path / "run", seed=7, resume=True)
    assert len(step.betas) == 10
    assert history == uninterrupted[1]
    assert rows(tmp_path / "run") == rows(uninterrupted[0])


def test_a_finished_run_says_so_and_gives_its_history(tmp_path, uninterrupted, capsys):
    folder, history, finished = uninterrupted
    again, step = train(folder, seed=7, resume=True, progress=True)
    assert again == history
    assert step.betas == []
    assert same(step.module.state_dict(), finished.module.state_dict())
    assert "is finished: 5 epochs, stopped by epochs" in capsys.readouterr().err


def test_a_finished_run_can_be_trained_for_longer(tmp_path):
    train(tmp_path / "a", epochs=3)
    history, step = train(tmp_path / "a", resume=True, seed=7)
    longer, other = train(tmp_path / "b")
    assert history == longer
    assert same(step.module.state_dict(), other.module.state_dict())


def test_without_a_checkpoint_it_starts_from_the_beginning(tmp_path, uninterrupted, capsys):
    (tmp_path / "run" / "checkpoints" / ".tmp-step-00000000-1").mkdir(parents=True)
    (tmp_path / "run" / "metrics.csv").write_text("step,epoch,spl")
    history, step = train(tmp_path / "run", resume=True, progress=True)
    assert history == uninterrupted[1]
    assert "holds no checkpoint yet: starting from the beginning" in capsys.readouterr().err


@pytest.fixture
def stopped(tmp_path) -> Path:
    with pytest.raises(Interrupted):
        train(tmp_path / "run", stop=6)
    return tmp_path / "run"


def test_another_model_is_refused(stopped):
    with pytest.raises(CheckpointError, match=r"another model(.|\n)*0.weight: float32 3x3 saved, float32 4x4 here"):
        tiny_trainer().fit(TinyStep(size=4), TinyFeed(size=4), folder=stopped, resume=True)
    step = TinyStep()
    step.module[1] = nn.BatchNorm1d(3, affine=False)
    with pytest.raises(CheckpointError, match=r"1.weight: float32 3 saved, absent here"):
        tiny_trainer().fit(step, TinyFeed(), folder=stopped, resume=True)


def test_other_data_and_other_settings_are_refused(stopped):
    with pytest.raises(CheckpointError, match="the feed was .*'num_data': 20.* and is .*'num_data': None"):
        tiny_trainer().fit(TinyStep(), [torch.ones(2, 3)] * 4, folder=stopped, resume=True)
    with pytest.raises(CheckpointError, match=r"a moving average of the weights \(ema\) was True and is False"):
        tiny_trainer(ema=None).fit(TinyStep(), TinyFeed(), folder=stopped, resume=True)


def test_a_feed_without_a_state_goes_on_after_the_batches_that_were_done(tmp_path):
    feed = [torch.full((2, 3), float(i)) for i in range(4)]
    results = []
    for name, stop in (("a", None), ("b", 6)):
        step = TinyStep()
        step.before = lambda number, stop=stop: signal.raise_signal(signal.SIGINT) if number == stop else None
        try:
            tiny_trainer().fit(step, feed, folder=tmp_path / name)
        except Interrupted:
            step = TinyStep(7)
            tiny_trainer().fit(step, feed, folder=tmp_path / name, resume=True)
        results.append(step.module.state_dict())
    assert same(*results)
