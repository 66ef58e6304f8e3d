# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The trainer keeps its promises about schedules, patience, averages, bad numbers and bad folders."""

import errno
import os
import re

import pyro
import pytest
import torch
from torch import nn

from pyro_dgm.train import NonFiniteLoss, Trainer, load_weights
from pyro_dgm.train.checkpoints import Checkpoints
from pyro_dgm.train.loop import Loop
from tests.train.tiny import TinyFeed, TinyStep, rows, tiny_trainer


def test_a_run_folder_has_metrics_checkpoints_events_and_the_configuration(tmp_path):
    step = TinyStep()
    trainer = tiny_trainer(tensorboard=True)
    history = trainer.fit(step, TinyFeed(), folder=tmp_path / "run", config={"model": {"latent": 2}})
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert [re.sub(r"tfevents.*", "*", name) for name in names] == [
        "checkpoints", "config.yaml", "events.out.*", "metrics.csv",
    ]  # fmt: skip
    assert (tmp_path / "run" / "config.yaml").read_text() == "model:\n  latent: 2\n"
    assert history.column("epoch") == [1, 2, 3, 4, 5]
    assert history.column("step") == [4, 8, 12, 16, 20]
    assert history.column("lr") == [0.01, 0.005, 0.005, 0.0025, 0.0025]
    assert history.stopped == "epochs"
    assert history.best_epoch is None
    assert [row["step"] for row in rows(tmp_path / "run")][:4] == ["3", "4", "7", "8"]
    with pytest.raises(KeyError, match=r"no 'valid.loss': it has beta, epoch, lr, step, train.log_p.x"):
        history.column("valid.loss")


def test_means_of_an_epoch_are_over_all_its_steps(tmp_path):
    losses: list[float] = []
    step = TinyStep()

    class Noted(TinyStep):
        def __call__(self, batch):
            values = super().__call__(batch)
            losses.append(values["loss"].item())
            return values

    step = Noted()
    history = tiny_trainer().fit(step, TinyFeed(), folder=tmp_path / "run")
    assert history.column("train.loss") == pytest.approx([sum(losses[i : i + 4]) / 4 for i in range(0, 20, 4)])
    assert [float(row["loss"]) for row in rows(tmp_path / "run")[:2]] == pytest.approx([sum(losses[:3]) / 3, losses[3]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_epochs": None}, [2.0] * 8),
        ({"warmup_epochs": 2}, [1.0] * 4 + [2.0] * 4),
        ({"warmup_epochs": None, "warmup_steps": 4}, [0.5, 1.0, 1.5] + [2.0] * 5),
    ],
)
def test_warmup_scales_the_beta_that_was_given_and_leaves_it_as_it_was(tmp_path, options, expected):
    step = TinyStep()
    step.beta.fill_(2.0)
    tiny_trainer(epochs=2, **options).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert step.betas == expected
    assert step.beta == 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_epochs": 6}, r"warmup_epochs=6 is longer than training \(epochs=5\)"),
        ({"warmup_epochs": None, "warmup_steps": 21}, r"warmup_steps=21 is longer than training \(5 epochs are 20"),
        ({"warmup_steps": 3}, "both given"),
        ({"patience": 3}, "patience=3 needs a validation loss"),
        ({"patience": 0}, "patience=0: it must be at least 1"),
        ({"epochs": 0}, "epochs=0"),
        ({"ema": 1.0}, "ema=1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_trainer(**options).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_warmup_as_long_as_training_is_fine(tmp_path):
    tiny_trainer(warmup_epochs=5).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")


def test_a_warmup_needs_a_beta_and_training_needs_batches(tmp_path):
    step = TinyStep()
    del step.beta
    step.before = lambda number: setattr(step, "beta", 1.0)
    with pytest.raises(ValueError, match="TinyStep has no beta"):
        tiny_trainer().fit(step, TinyFeed(), folder=tmp_path / "a")
    with pytest.raises(ValueError, match="There are no batches"):
        tiny_trainer().fit(TinyStep(), [], folder=tmp_path / "b")


@pytest.mark.parametrize(
    ("losses", "patience", "stopped", "best"),
    [
        ([0.0, 0.0, 5.0, 4.0, 6.0, 6.0, 1.0], 2, 6, 4),  # what comes in the two epochs of warm-up never counts
        ([0.0, 9.0, 5.0, 4.0, 3.0, 2.0, 1.0], 2, 7, 7),
        ([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0], 1, 4, 3),
    ],
)
def test_patience_and_best_count_from_the_end_of_the_warmup(tmp_path, losses, patience, stopped, best):
    values = iter(losses)
    trainer = tiny_trainer(epochs=7, patience=patience, warmup_epochs=3)
    history = trainer.fit(TinyStep(), TinyFeed(), folder=tmp_path / "run", validate=lambda: {"loss": next(values)})
    assert len(history.epochs) == stopped
    assert history.best_epoch == best
    assert history.best_loss == losses[best - 1]
    assert history.stopped == ("patience" if stopped < 7 else "epochs")


def test_validation_sees_averaged_weights_in_evaluation_mode_at_full_beta_without_gradients(tmp_path):
    step, seen = TinyStep(), []

    def validate():
        loss = step.module[0].weight.sum()
        seen.append((step.beta.item(), step.module.training, loss.requires_grad, step.module[0].weight.clone()))
        return {"loss": loss}

    tiny_trainer(epochs=3).fit(step, TinyFeed(), folder=tmp_path / "run", validate=validate)
    assert [entry[:3] for entry in seen] == [(1.0, False, False)] * 3
    assert step.module.training
    assert torch.equal(step.module[0].weight, seen[-1][3])  # in the end the averaged weights are there


def test_the_best_weights_are_kept(tmp_path):
    step, losses, seen = TinyStep(), iter([3.0, 1.0, 2.0, 5.0]), []

    def validate():
        seen.append(step.module[0].weight.clone())
        return {"loss": next(losses)}

    tiny_trainer(epochs=4, warmup_epochs=1).fit(step, TinyFeed(), folder=tmp_path / "run", validate=validate)
    other = TinyStep(2).module
    load_weights(tmp_path / "run", other)
    assert torch.equal(other[0].weight, seen[1])
    load_weights(tmp_path / "run", other, best=False)
    assert torch.equal(other[0].weight, seen[3])


def test_the_seed_decides(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(weights))  # whatever was drawn before
        step = TinyStep()
        tiny_trainer(epochs=2, seed=seed).fit(step, TinyFeed(), folder=tmp_path / name)
        weights.append(step.module[0].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("always", [False, True])
def test_pyro_checks_the_first_step_and_then_only_if_told_to(tmp_path, always):
    step, seen = TinyStep(), []
    step.before = lambda number: seen.append(pyro.poutine.is_validation_enabled())
    before = pyro.poutine.is_validation_enabled()
    tiny_trainer(epochs=2, validate_args=always).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert seen == [True] + [always] * 7
    assert pyro.poutine.is_validation_enabled() == before


def spoil(step: TinyStep, at: int) -> None:
    """Make the weights infinite right before a step."""

    def before(number: int) -> None:
        if number == at:
            nn.init.constant_(step.module[0].bias, float("inf"))

    step.before = before


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("at", [1, 2, 5, 20])
def test_a_loss_that_is_not_finite_stops_with_step_site_and_checkpoint(tmp_path, monkeypatch, at, each):
    step = TinyStep()
    spoil(step, at)
    if not each:  # as on an accelerator, where losses are looked at only now and then
        monkeypatch.setattr(Loop, "_watch_each", property(lambda self: False, lambda self, value: None), raising=False)
    with pytest.raises(NonFiniteLoss) as caught:
        tiny_trainer(checkpoint_every_steps=2).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert caught.value.step == at
    assert "log_p.x (nan)" in caught.value.site
    assert "parameter 0.weight" in caught.value.site or "gradient of 0.weight" in caught.value.site
    last = Checkpoints(tmp_path / "run" / "checkpoints").latest()
    assert caught.value.checkpoint == last.path
    assert str(last.path) in str(caught.value)
    assert f"Step {at}: " in str(caught.value)
    assert all(value.isfinite().all() for value in last.weights().values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    step = TinyStep()

    def epoch_end():  # after the last loss of the epoch was finite
        nn.init.constant_(step.module[0].bias, float("nan"))

    step.epoch_end = epoch_end
    with pytest.raises(NonFiniteLoss, match=r"Step 4: the weights 0.bias are not finite, at parameter 0.bias"):
        tiny_trainer(checkpoint_every_seconds=0).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest().path.name == "step-00000003"


def test_a_validation_loss_that_is_not_finite_stops_too(tmp_path):
    values = {"loss": float("nan"), "log_p.x": float("-inf")}
    with pytest.raises(NonFiniteLoss, match=r"the validation loss is nan, at log_p.x \(-inf\)"):
        tiny_trainer().fit(TinyStep(), TinyFeed(), folder=tmp_path / "run", validate=lambda: values)


def test_a_run_folder_that_exists_is_refused_unless_it_is_empty(tmp_path):
    (tmp_path / "run").mkdir()
    tiny_trainer(epochs=2).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")
    with pytest.raises(FileExistsError, match="exists already. Continue that run with --resume"):
        tiny_trainer(epochs=2).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no run folder .* to resume"):
        tiny_trainer().fit(TinyStep(), TinyFeed(), folder=tmp_path / "other", resume=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Cannot write to the run folder .*Not a directory.* Choose a folder"):
        tiny_trainer().fit(TinyStep(), TinyFeed(), folder=tmp_path / "file" / "run")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fills_up_while_training_keeps_the_last_checkpoint(tmp_path, monkeypatch, number):
    step, calls = TinyStep(), os.fsync

    def fill_up(count: int) -> None:
        def refuse(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse if count > 6 else calls)

    step.before = fill_up
    with pytest.raises(
        OSError, match=r"step-00000004; make room or permit writing, then continue with --resume"
    ) as error:
        tiny_trainer(checkpoint_every_steps=4).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert error.value.errno == number
    monkeypatch.undo()
    history = tiny_trainer().fit(TinyStep(2), TinyFeed(), folder=tmp_path / "run", resume=True)
    assert len(history.epochs) == 5


def test_progress_goes_to_standard_error(tmp_path, capsys):
    tiny_trainer(progress=True, epochs=2).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2 done  loss ")
    assert all(word in lines[0] for word in ("nats ", "beta 0.50", " images/s", " left"))


def test_a_bare_step_and_a_list_of_batches_are_enough(tmp_path):
    class Bare:
        module = nn.Linear(1, 1)

        def __call__(self, batch):
            return {"loss": batch.sum()}

    history = Trainer(epochs=2, progress=False, tensorboard=False).fit(
        Bare(), [torch.ones(2), torch.zeros(2)], folder=tmp_path / "run"
    )
    assert history.column("train.loss") == [1.0, 1.0]
