# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Schedules of the KL's weight and of its target: their shapes, and that training follows and continues them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.infer import ELBO, Capacity, FreeBits, GradientStep, Objective
from pyro_dgm.train import Validation, Warmup
from tests.oracles import LinearGaussian
from tests.train.tiny import TinyFeed, TinyStep, rows, tiny_trainer, tiny_validation

SHAPES = ["linear", "cosine", "cyclic"]


def shares(warmup, number):
    return [warmup.share(epoch=1, step=step) for step in range(1, number + 1)]


@given(steps=st.integers(1, 300), shape=st.sampled_from(SHAPES), cycles=st.integers(1, 9), rise=st.floats(0.01, 1.0))
def test_every_shape_is_a_share_that_ends_at_one(steps, shape, cycles, rise):
    warmup = Warmup(steps=steps, shape=shape, cycles=cycles, rise=rise)
    found = shares(warmup, steps + 3)
    assert all(0 < share <= 1 for share in found)
    assert found[steps - 1 :] == [1.0] * 4
    if shape != "cyclic":
        assert found == sorted(found)


@given(steps=st.integers(1, 100))
def test_one_cycle_that_rises_all_the_time_is_linear(steps):
    cyclic = Warmup(steps=steps, shape="cyclic", cycles=1, rise=1)
    assert shares(cyclic, steps) == pytest.approx(shares(Warmup(steps=steps), steps))


@given(cycles=st.integers(1, 6), length=st.integers(2, 20), rise=st.floats(0.1, 1.0))
def test_all_cycles_are_alike(cycles, length, rise):
    found = shares(Warmup(steps=cycles * length, shape="cyclic", cycles=cycles, rise=rise), cycles * length)
    for start in range(0, cycles * length, length):
        cycle = found[start : start + length]
        assert cycle == pytest.approx(found[:length])
        assert cycle == sorted(cycle)
        assert cycle[-1] == 1.0


def test_a_cosine_is_flat_at_both_ends_and_half_in_the_middle():
    found = shares(Warmup(steps=100, shape="cosine"), 100)
    assert found[49] == pytest.approx(0.5)
    assert found[0] == pytest.approx((1 - math.cos(math.pi / 100)) / 2)
    assert found[0] < 0.001
    assert 1 - found[98] < 0.001


@pytest.mark.parametrize(
    ("options", "said"),
    [({"cycles": 0}, "warmup_cycles=0"), ({"rise": 0.0}, "warmup_rise=0.0"), ({"rise": 1.5}, "warmup_rise=1.5")],
)
def test_cycles_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Warmup(steps=4, shape="cyclic", **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_shape": "cosine", "warmup_epochs": 2}, [0.5] * 4 + [1.0] * 4),
        ({"warmup_shape": "cyclic", "warmup_steps": 8, "warmup_cycles": 2}, [0.5, 1, 1, 1] * 2),
        ({"warmup_shape": "cyclic", "warmup_epochs": 2, "warmup_cycles": 1, "warmup_rise": 1}, [0.5] * 4 + [1.0] * 4),
    ],
)
def test_training_follows_the_shape(tmp_path, options, expected):
    step = TinyStep()
    tiny_trainer(**{"epochs": 2, "warmup_epochs": None, **options}).fit(step, TinyFeed(), folder=tmp_path / "run")
    assert step.betas == pytest.approx(expected)


class CapacityStep(TinyStep):
    """A tiny step with a target of its own for the penalty."""

    def __init__(self):
        super().__init__()
        self.capacity = torch.tensor(8.0, dtype=torch.float64)
        self.capacities = []

    def __call__(self, batch):
        self.capacities.append(float(self.capacity))
        with torch.no_grad():  # whatever depends on it, so that weights differ if it is not continued
            self.module[0].bias.mul_(1 - 0.01 * self.capacity.float())
        return super().__call__(batch)


@pytest.mark.parametrize(
    "options", [{"warmup_shape": "cyclic", "warmup_cycles": 2}, {"warmup_shape": "cosine"}, {"capacity_steps": 14}]
)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_continued_schedule_goes_on_to_the_bit(tmp_path, options, stop):
    settings = {"warmup_epochs": 4, **options}
    whole, first, rest = CapacityStep(), CapacityStep(), CapacityStep()
    tiny_trainer(epochs=5, **settings).fit(
        whole, TinyFeed(), folder=tmp_path / "whole", validate=tiny_validation(whole)
    )
    trainer = tiny_trainer(epochs=5, **settings)
    trainer.epochs = stop  # as if killed: the schedule is that of the whole run
    trainer.warmup.require_shorter_than = trainer.capacity.require_shorter_than = lambda **lengths: None
    trainer.fit(first, TinyFeed(), folder=tmp_path / "parts", validate=tiny_validation(first))
    tiny_trainer(epochs=5, **settings).fit(
        rest, TinyFeed(), folder=tmp_path / "parts", validate=tiny_validation(rest), resume=True
    )
    assert first.betas + rest.betas == whole.betas
    assert first.capacities + rest.capacities == whole.capacities
    assert all(torch.equal(a, b) for a, b in zip(whole.module.parameters(), rest.module.parameters(), strict=True))
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_capacity_rises_linearly_and_keeps_its_value(tmp_path):
    step = CapacityStep()
    trainer = tiny_trainer(epochs=2, warmup_epochs=None, capacity_steps=4)
    trainer.fit(step, TinyFeed(), folder=tmp_path / "run")
    assert step.capacities == [2.0, 4.0, 6.0] + [8.0] * 5
    assert step.capacity == 8.0
    assert float(rows(tmp_path / "run")[-1]["capacity"]) == 8.0


def test_patience_counts_from_the_last_schedule(tmp_path):
    history = tiny_trainer(epochs=6, warmup_epochs=1, capacity_epochs=4, patience=1).fit(
        CapacityStep(), TinyFeed(), folder=tmp_path / "run", validate=iter_losses([1, 2, 3, 4, 5, 6])
    )
    assert (len(history.epochs), history.best_epoch) == (5, 4)


def test_a_cycle_in_the_middle_is_not_the_end_of_the_warmup(tmp_path):
    trainer = tiny_trainer(epochs=5, warmup_epochs=4, warmup_shape="cyclic", warmup_cycles=2)
    history = trainer.fit(TinyStep(), TinyFeed(), folder=tmp_path / "run", validate=iter_losses([1, 2, 3, 4, 5]))
    assert history.best_epoch == 4


def iter_losses(losses):
    values = iter(losses)
    return lambda: {"loss": float(next(values))}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capacity_epochs": 6}, r"capacity_epochs=6 is longer than training"),
        ({"capacity_steps": 21}, r"capacity_steps=21 is longer than training \(5 epochs are 20"),
        ({"capacity_steps": 2, "capacity_epochs": 2}, "capacity_epochs=2 and capacity_steps=2 are both given"),
        ({"capacity_steps": 2}, r"TinyStep has none.*kl=Capacity"),
    ],
)
def test_a_capacity_schedule_that_cannot_be_is_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        tiny_trainer(**options).fit(TinyStep(), TinyFeed(), folder=tmp_path / "run")


def test_a_gradient_step_has_the_capacity_of_its_bound():
    oracle = LinearGaussian()

    def step(bound):
        objective = Objective(oracle.model, oracle.guide, bound)
        return GradientStep(objective, torch.optim.Adam(objective.parameters()))

    control = Capacity(5.0)
    assert step(ELBO(kl=control)).capacity is control.nats
    assert not hasattr(step(ELBO(kl=FreeBits(1.0))), "capacity")
    assert not hasattr(step(ELBO()), "capacity")


def test_validation_is_of_the_plain_elbo():
    oracle = LinearGaussian(widen=2.0)
    x, control = oracle.data(20), FreeBits(50.0, per="all")
    plain, controlled = (
        Validation(Objective(oracle.model, oracle.guide, ELBO(beta=0.5, kl=kl)), x)() for kl in (None, control)
    )
    assert plain["loss"] == controlled["loss"]
    bound = ELBO(kl=control)
    Validation(Objective(oracle.model, oracle.guide, bound), x)()
    assert bound.kl is control
