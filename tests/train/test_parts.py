# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The small parts of training, each by itself: warm-up, patience, averages, windows, blame, schedules, interrupts."""

import os
import signal

import pytest
import torch
from torch import nn

from pyro_dgm.train import EarlyStopping, ExponentialMovingAverage, Warmup, schedule
from pyro_dgm.train.blame import blame
from pyro_dgm.train.clock import Clock
from pyro_dgm.train.interrupts import Interrupts
from pyro_dgm.train.random_state import random_state, set_random_state
from pyro_dgm.train.warmup import full_weight
from pyro_dgm.train.window import Window


def test_warmup_by_steps_rises_linearly_to_one():
    warmup = Warmup(steps=4)
    assert [warmup.share(epoch=1, step=step) for step in (1, 2, 4, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert Warmup().share(epoch=1, step=1) == 1.0
    assert not Warmup()


def test_warmup_refuses_both_and_negative_ones():
    with pytest.raises(ValueError, match="both given"):
        Warmup(epochs=1, steps=1)
    with pytest.raises(ValueError, match="cannot be negative"):
        Warmup(steps=-1)


def test_full_weight_comes_and_goes():
    beta = torch.tensor(0.3)
    with full_weight(beta):
        assert beta == 1.0
    assert beta == torch.tensor(0.3)
    with full_weight(None):
        pass


def test_early_stopping_counts_epochs_without_improvement():
    stopping = EarlyStopping(2)
    assert [stopping.update(loss, epoch=i) for i, loss in enumerate([5.0, 4.0, 4.0])] == [True, True, False]
    assert not stopping.exhausted
    copy = EarlyStopping(2)
    copy.load_state_dict(stopping.state_dict())
    copy.update(4.5, epoch=3)
    assert copy.exhausted
    assert (copy.best, copy.best_epoch) == (4.0, 1)
    with pytest.raises(ValueError, match="patience=0"):
        EarlyStopping(0)


def test_the_average_follows_its_formula_and_swaps_to_the_bit(device):
    module = nn.Linear(2, 2, device=device)
    average = ExponentialMovingAverage(module, 0.5)
    expected = module.weight.detach().clone()
    for t in range(1, 20):
        nn.init.normal_(module.weight)
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    kept = module.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(module.weight.detach(), expected)
        assert torch.equal(module.weight, average.weights()["weight"])
    assert torch.equal(module.weight, kept)
    other = ExponentialMovingAverage(nn.Linear(2, 2, device=device), 0.5)
    other.load({name: value.cpu() for name, value in average.weights().items()}, updates=average.updates)
    assert all(torch.equal(a, b) for a, b in zip(other.averages, average.averages, strict=True))
    with pytest.raises(ValueError, match="between 0 and 1"):
        ExponentialMovingAverage(module, 1.0)
    with pytest.raises(ValueError, match="ReLU has no parameters to average"):
        ExponentialMovingAverage(nn.ReLU(), 0.9)


def test_the_window_copies_rows_and_finds_the_first_bad_one(device):
    window, value = Window(4), torch.zeros((), device=device)
    for number in (1.0, 2.0, float("inf"), float("nan")):
        value.fill_(number)  # the same tensor each time, as a captured step returns it
        window.add({"loss": value, "other": torch.ones((), device=device)})
    assert window.full
    assert window.read()[:2].tolist() == [[1.0, 1.0], [2.0, 1.0]]
    assert window.first_bad(window.read()) == 2
    other = Window(4)
    other.load_state_dict(window.state_dict(), device=device)
    assert torch.equal(other.read().nan_to_num(), window.read().nan_to_num())
    window.clear()
    assert (window.filled, window.latest()) == (0, {})


def test_the_window_wants_a_loss_and_the_same_names():
    window = Window(2)
    with pytest.raises(ValueError, match="must return its 'loss'"):
        window.add({"elbo": torch.zeros(())})
    window.add({"loss": torch.zeros(())})
    with pytest.raises(ValueError, match="names must not change"):
        window.add({"loss": torch.zeros(()), "more": torch.zeros(())})


def test_blame_names_sites_gradients_and_parameters():
    module = nn.Linear(1, 1)
    assert "no sample site" in blame({"loss": float("nan"), "log_p.x": -1.0}, module)
    module.weight.grad = torch.full((1, 1), float("inf"))
    found = blame({"log_p.x": float("nan"), "log_q.z": float("-inf"), "log_p.z": -1.0}, module)
    assert found == "log_p.x (nan), log_q.z (-inf), gradient of weight"
    module.weight.grad = None
    nn.init.constant_(module.bias, float("nan"))
    assert blame({}, module) == "parameter bias"


def test_a_schedule_is_found_by_name():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = schedule("StepLR", step_size=1, gamma=0.5)(optimizer)
    optimizer.step()
    made.step()
    assert made.get_last_lr() == [0.5]


@pytest.mark.parametrize("name", ["CosineAnealingLR", "ReduceLROnPlateau", "Optimizer", "nothing like it"])
def test_an_unknown_schedule_is_refused_with_near_ones(name):
    with pytest.raises(ValueError, match="did you mean .*LR"):
        schedule(name)


def test_a_signal_sets_a_flag_and_the_old_handlers_come_back():
    old = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.signum == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # a launcher passing it on once more
    assert signal.getsignal(signal.SIGINT) is old


@pytest.fixture
def python_handles_ctrl_c():
    """Python's own handler, also where the suite runs in the background and has inherited "ignore"."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_a_second_ctrl_c_after_a_while_acts_at_once():
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts._noted -= 2.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_all_generators_are_restored():
    import random

    import numpy as np

    state = random_state()
    first = torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]
    set_random_state(state)
    assert first == (torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)])


def test_the_clock_measures_each_asker_apart():
    clock = Clock(seconds=100.0)
    assert clock.seconds_left(5) is None
    clock.count(10)
    assert clock.images_per_second("a") > 0
    assert clock.images_per_second("b") > 0
    assert clock.images_per_second("a") > 0  # nothing done since: the last known one
    assert clock.seconds >= 100.0
    assert clock.seconds_left(5) > 0
