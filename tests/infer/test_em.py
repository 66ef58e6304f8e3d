# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""EM as a step of training and as a loop: batches, chunks, online, continuation, and what it says when it falls."""

import copy
import math

import pytest
import torch
from torch import nn

from pyro_dgm.data import Batches
from pyro_dgm.infer import EM, em
from pyro_dgm.infer.em_history import EMHistory
from pyro_dgm.infer.expectation_maximization import ClosedForm
from pyro_dgm.models import BayesianMixture, GaussianMixture, GaussianMixturePrior, KMeans
from pyro_dgm.train import Trainer
from pyro_dgm.train.step import Step
from tests.cases import MIXTURES


def clouds(size=300):
    generator = torch.Generator().manual_seed(1)
    places = 5 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    return places.repeat(size // 3, 1) + torch.randn(size, 2, generator=generator, dtype=torch.float64)


def started(x, **options):
    model = GaussianMixture(dim=2, components=3, **{"ridge": 0, **options}).to(x.dtype)
    model.start(x)
    return model


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_have_a_closed_form(name):
    model = MIXTURES[name]()
    assert isinstance(model, ClosedForm)
    assert isinstance(EM(model), Step)


@pytest.mark.parametrize("size", [1, 7, 300])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_batches_and_chunks_are_one_sweep(size, chunk_size):
    x = clouds()
    whole, parts = started(x), started(x)
    one, many = EM(whole), EM(parts, chunk_size=chunk_size)
    for _ in range(3):
        one(x)
        one.epoch_end()
        for batch in x.split(size):
            many(batch)
        many.epoch_end()
    assert one.history.objectives == pytest.approx(many.history.objectives, rel=1e-12)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_last_objective_is_of_the_parameters():
    x = clouds()
    for sweeps in (0, 1, 5, 500):
        model = started(x)
        history = em(model, x, sweeps=sweeps, tolerance=1e-9)
        assert history.objectives[-1] == pytest.approx(model.log_prob(x).mean().item(), rel=1e-12)
        assert history.sweeps <= sweeps
        assert history.converged == (sweeps == 500)


def test_with_a_prior_the_objective_has_it():
    x = clouds()
    model = started(x, prior=GaussianMixturePrior(concentration=3), ridge=None)
    history = em(model, x)
    expected = (model.log_prob(x).sum() + model.log_prior()) / 300
    assert history.objectives[-1] == pytest.approx(expected.item(), rel=1e-12)
    assert history.monotone


def test_restarts_keep_the_best_and_are_reproducible():
    x = clouds()
    model = GaussianMixture(dim=2, components=5, ridge=1e-3).double()
    history = em(model, x, restarts=4, seed=7, sweeps=15)
    assert len(history.restarts) == 4
    assert history.objectives[-1] == max(history.restarts)
    assert model.log_prob(x).mean().item() == pytest.approx(max(history.restarts), rel=1e-12)
    singly = [em(GaussianMixture(dim=2, components=5, ridge=1e-3).double(), x, seed=7 + i, sweeps=15) for i in range(4)]
    assert [one.objectives[-1] for one in singly] == history.restarts


def spoilt():
    """Few data and no ridge: from some starts a component ends on a single datum, from others not."""
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double()
    return GaussianMixture(dim=2, components=5, ridge=0).double(), x


def test_a_start_that_collapses_does_not_spoil_the_others():
    finals = []
    for seed in range(6):
        model, x = spoilt()
        try:
            finals.append(em(model, x, seed=seed).objectives[-1])
        except ValueError:
            finals.append(-math.inf)
    assert -math.inf in finals
    assert max(finals) > -math.inf
    model, x = spoilt()
    history = em(model, x, restarts=6)
    assert history.restarts == finals
    assert history.objectives[-1] == max(finals)
    assert model.log_prob(x).mean().item() == pytest.approx(max(finals), rel=1e-12)


def test_if_all_starts_fail_the_first_error_is_raised():
    model = GaussianMixture(dim=2, components=2, ridge=0).double()
    with pytest.raises(ValueError, match="singular"):
        em(model, torch.ones(9, 2, dtype=torch.float64), restarts=3)


def test_it_says_why_it_fell():
    x = clouds()
    model = started(x, ridge=2)
    with torch.no_grad():
        model.loc.copy_(torch.stack([x[i::3].mean(0) for i in range(3)]))  # the best place, too narrow for the ridge
        model.raw_covariance.zero_()
    history = em(model, x, seed=None, sweeps=5)
    assert not history.monotone
    assert history.falls[0] == 1
    assert "sweep 1 lowered the objective" in history.why
    assert "adds ridge=2" in history.why
    assert EMHistory([1.0, 2.0]).why is None
    assert "float64" in EMHistory([1.0, 0.5]).why


def test_a_history_tells_rounding_from_falling():
    assert EMHistory([-5.0, -5.0 - 1e-14]).monotone
    assert not EMHistory([-5.0, -5.0 - 1e-9]).monotone
    assert EMHistory([-5.0, -5.0 - 1e-14]).settled(0)
    assert not EMHistory([-5.0, -5.1]).settled(0.01)
    assert not EMHistory([-5.0]).settled(1e9)
    assert EMHistory().sweeps == 0
    assert EMHistory([-5.0, math.nan, math.nan]).falls == [1, 2]
    assert not EMHistory([-5.0, math.nan]).monotone
    assert not EMHistory([-5.0, math.nan]).settled(1)


def test_online_claims_nothing():
    x = clouds()
    step = EM(started(x), online=(2, 0.7))
    for batch in x.split(50):
        step(batch)
    step.epoch_end()
    assert step.history.objectives == []
    assert step.history.monotone is None
    assert step.history.why is None
    assert not step.history.converged


def test_it_is_a_step_of_training(tmp_path):
    x = clouds()
    model, other = started(x), started(x)
    history = Trainer(epochs=4, progress=False, tensorboard=False).fit(
        EM(model), Batches(x, batch_size=60), folder=tmp_path / "run"
    )
    found = em(other, x, sweeps=4, tolerance=0, seed=None)
    losses = [epoch["train.loss"] for epoch in history.epochs]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)
    assert model.log_prob(x).mean().item() == pytest.approx(found.objectives[-1], rel=1e-9)


@pytest.mark.parametrize("online", [None, (2, 0.7)])
def test_it_continues_in_the_middle_of_a_sweep(online):
    x = clouds()
    model = started(x)
    step = EM(model, online=online)
    for batch in x.split(50)[:3]:
        step(batch)
    twin = copy.deepcopy(model)
    again = EM(twin, online=online)
    again.load_state_dict(copy.deepcopy(step.state_dict()))
    for one in (step, again):
        for batch in x.split(50)[3:]:
            one(batch)
        one.epoch_end()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    assert step.history.objectives == again.history.objectives


def test_online_with_the_whole_batch_and_full_steps_is_em():
    """With rates of 1 nothing is remembered: t0 = 0 and one batch only."""
    x = clouds()
    whole, online = started(x), started(x)
    em(whole, x, sweeps=1, tolerance=0, seed=None)
    EM(online, online=(0, 1))(x)
    for a, b in zip(whole.parameters(), online.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_online_holds_the_first_m_step():
    x = clouds()
    model = started(x)
    before = model.loc.clone()
    step = EM(model, online=(1, 0.6), hold=3)
    for number, batch in enumerate(x.split(10)[:3], 1):
        step(batch)
        assert torch.equal(model.loc, before) == (number < 3)
    other = started(x)
    other.maximize(other.statistics(x[:30]))
    assert torch.allclose(model.loc, other.loc)


def test_online_counts_the_prior_against_all_data():
    x = clouds()
    prior = GaussianMixturePrior(concentration=40)
    whole, online = (started(x, prior=prior, ridge=None) for _ in range(2))
    em(whole, x, sweeps=1, tolerance=0, seed=None)
    with pytest.raises(ValueError, match=r"give size=len\(data\)"):
        EM(online, online=(0, 1))
    step = EM(online, online=(0, 1), hold=3, size=300)
    for batch in x.split(100):
        step(batch)
    assert torch.allclose(whole.weights, online.weights)
    assert torch.allclose(whole.covariances, online.covariances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_device_and_precision(dtype, device):
    x = clouds().to(device, dtype)
    model = GaussianMixture(dim=2, components=3).to(device, dtype)
    history = em(model, x, chunk_size=64)
    assert history.converged
    assert history.monotone, history.why
    assert history.slack < (1e-4 if dtype == torch.float32 else 1e-10)


def test_what_it_refuses():
    x = clouds()
    model = started(x)
    with pytest.raises(ValueError, match="Linear, which has no closed form"):
        EM(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="BayesianMixture, which has no closed form.* use CoordinateAscent"):
        EM(BayesianMixture(dim=2, components=3))
    for options, words in (
        ({"online": (1, 0.5)}, "kappa"),
        ({"online": (-1, 0.7)}, "t0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"hold": 0}, "hold=0"),
    ):
        with pytest.raises(ValueError, match=words):
            EM(model, **options)
    with pytest.raises(ValueError, match="without data"):
        EM(model).epoch_end()
    with pytest.raises(ValueError, match="needs a seed"):
        em(model, x, seed=None, restarts=2)
    with pytest.raises(ValueError, match="objective of nan"):
        em(model, torch.full((5, 2), math.nan, dtype=torch.float64), seed=None)


def test_k_means_is_a_step_too():
    x = clouds()
    model = KMeans(dim=2, components=3, variance=0).double()
    model.start(x)
    step = EM(model)
    for _ in range(10):
        for batch in x.split(100):
            step(batch)
        step.epoch_end()
    assert step.history.monotone
    assert model.inertia(x) < 3 * len(x)
