# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Coordinate ascent as a step of training: sweeps of batches, online steps, states that continue."""

import pytest
import torch
from torch import Tensor, nn

from pyro_dgm.infer import CoordinateAscent, coordinate_ascent
from pyro_dgm.models import BayesianMixture, GaussianMixture
from pyro_dgm.train import Trainer


def blobs(size: int = 120) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return noise + 4 * (torch.arange(size) % 3).unsqueeze(-1)


def started(x: Tensor, *, components: int = 3) -> BayesianMixture:
    model = BayesianMixture(dim=2, components=components).to(x)
    model.start(x)
    return model


def same(first: nn.Module, second: nn.Module, **tolerance: float) -> None:
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_batches_and_chunks_make_the_same_sweep() -> None:
    x = blobs()
    whole, batches, chunks = (started(x) for _ in range(3))
    steps = CoordinateAscent(whole), CoordinateAscent(batches), CoordinateAscent(chunks, chunk_size=7)
    for _ in range(3):
        for step, feed in zip(steps, ([x], x.split(50), [x]), strict=True):
            for batch in feed:
                step(batch)
            step.epoch_end()
    same(whole, batches, atol=1e-10, rtol=1e-10)
    same(whole, chunks, atol=1e-10, rtol=1e-10)
    assert steps[0].history.objectives == pytest.approx(steps[1].history.objectives, abs=1e-12)
    assert steps[0].history.monotone


def test_the_loss_is_minus_the_bound_per_datum() -> None:
    x = blobs()
    model = started(x)
    step = CoordinateAscent(model)
    loss = step(x)["loss"]
    assert float(loss) == pytest.approx(-step.evaluate())


def test_online_steps_come_close_to_coordinate_ascent() -> None:
    x = blobs(600)
    best = coordinate_ascent(started(x), x, seed=None, tolerance=1e-10).objectives[-1]
    model = started(x)
    with torch.no_grad():
        model.loc += torch.linspace(-1, 1, 6, dtype=x.dtype).reshape(3, 2)
        model.log_dof -= 3
        model.log_concentration.zero_()
    step = CoordinateAscent(model, online=(1, 0.7), size=600)
    before = -float(step(x)["loss"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        for index in torch.randperm(600, generator=generator).split(100):
            step(x[index])
        step.epoch_end()
    after = -float(step(x)["loss"])
    assert before < after <= best + 1e-9
    assert best - after < 0.02
    assert not step.history.objectives
    assert step.history.monotone is None


def test_a_full_online_step_of_rate_one_is_a_sweep() -> None:
    x = blobs()
    sweep, online = started(x), started(x)
    step = CoordinateAscent(sweep)
    step(x)
    step.epoch_end()
    CoordinateAscent(online, online=(0, 1.0), size=len(x))(x)  # the first step has rate 1
    same(sweep, online)


def test_a_mini_batch_moves_as_many_copies_of_it_would() -> None:
    x = blobs(60)
    few, many = started(x), started(x)
    few.coordinate_update(few.coordinate_statistics(x), scale=3, rate=0.3)
    many.coordinate_update(many.coordinate_statistics(x.repeat(3, 1)), rate=0.3)
    same(few, many, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("online", [None, (1, 0.6)])
def test_a_state_continues_in_the_middle_of_a_sweep(online: tuple[int, float] | None) -> None:
    x = blobs()
    one, other = started(x), started(x)
    step = CoordinateAscent(one, online=online, size=len(x))
    again = CoordinateAscent(other, online=online, size=len(x))
    first, second = x.split(60)
    step(first)
    other.load_state_dict(one.state_dict())
    again.load_state_dict(step.state_dict())
    for one_step in (step, again):
        one_step(second)
        one_step.epoch_end()
    same(one, other)
    assert step.history.objectives == again.history.objectives


def test_the_trainer_makes_the_sweeps(tmp_path) -> None:
    x = blobs()
    model = started(x)
    step = CoordinateAscent(model, size=len(x))
    history = Trainer(epochs=4, progress=False).fit(step, x.split(60), folder=tmp_path)
    losses = [epoch["train.loss"] for epoch in history.epochs]
    assert losses == pytest.approx([-objective for objective in step.history.objectives])
    assert losses == sorted(losses, reverse=True)


def test_more_components_than_data_are_safe() -> None:
    x = blobs(5)
    history = coordinate_ascent(started(x, components=9), x, seed=None)
    assert history.monotone, history.why


def test_what_is_wrong_is_said() -> None:
    x = blobs()
    with pytest.raises(ValueError, match="MeanField"):
        CoordinateAscent(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="as GaussianMixture, use EM"):
        CoordinateAscent(GaussianMixture(dim=2, components=2))
    model = started(x)
    for settings in ({"online": (1, 0.5), "size": 9}, {"online": (1, 0.7)}, {"chunk_size": 0}):
        with pytest.raises(ValueError, match="got"):
            CoordinateAscent(model, **settings)
    step = CoordinateAscent(model)
    with pytest.raises(ValueError, match="without data"):
        step.epoch_end()
    with pytest.raises(ValueError, match="empty"):
        step(x[:0])
    with pytest.raises(ValueError, match="negative"):
        coordinate_ascent(model, x, sweeps=-1)
