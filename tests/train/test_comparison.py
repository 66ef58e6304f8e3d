# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Each method fits the same clouds from the same start, through the trainer, and tells what it found and cost."""

import copy
import math

import pytest
import torch

from pyro_dgm.evaluate.matching import matched_distance
from pyro_dgm.infer.expectation_maximization import em
from pyro_dgm.models import MarginalMixture
from pyro_dgm.train import TimedStep, compare_mixtures
from pyro_dgm.train.comparison import ALL, started
from pyro_dgm.train.mixture_methods import typical_covariances

MEANS = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]], dtype=torch.float64)


def clouds(count, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.arange(count) % 3
    return MEANS[z] + torch.randn(count, 2, dtype=torch.float64, generator=generator), z


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    (x, _), (held_out, _) = clouds(150, 0), clouds(60, 1)
    folder = tmp_path_factory.mktemp("comparison")
    told, ended = [], []
    settings = {"components": 3, "sweeps": 30, "batch_size": 50, "warmup": 50, "samples": 20}
    found = compare_mixtures(x, held_out, folder=folder, **settings, say=told.append, found=ended.append)
    assert told == list(ALL)
    assert ended == list(found.values())
    return found, folder


@pytest.mark.parametrize("method", ALL)
def test_clear_clouds_are_found_by_every_method(method, fits):
    fit = fits[0][method]
    assert fit.method == method
    assert matched_distance(fit.means, MEANS) < 0.5
    assert fit.weights.sum().item() == pytest.approx(1)
    assert torch.linalg.eigvalsh(fit.covariances).min() > 0
    assert fit.responsibilities.sum(-1).allclose(torch.ones(150).double())
    assert fit.train.shape == (150,)
    assert fit.held_out.shape == (60,)
    z, assigned = clouds(150, 0)[1], fit.assignments
    assert len({(int(a), int(b)) for a, b in zip(z, assigned, strict=True)}) <= 5, "nearly one component per cloud"


def test_what_methods_raise_rises(fits):
    for name in ("em", "mean_field", "k_means"):
        curve = fits[0][name].curve.objectives
        assert all(new >= old - 1e-10 * abs(old) for old, new in zip(curve, curve[1:], strict=False)), name
    for name in ("svi", "amortised"):
        curve = fits[0][name].curve.objectives
        assert curve[-1] > curve[0]


def test_objectives_are_below_the_likelihood_by_the_gap(fits):
    for name in ("em", "svi", "amortised", "k_means"):
        fit = fits[0][name]
        assert fit.train.mean().item() - fit.gap == pytest.approx(fit.curve.objectives[-1], abs=1e-9)
    assert fits[0]["em"].gap == 0 < fits[0]["amortised"].gap
    assert fits[0]["mean_field"].gap is None
    highest = max(fits[0]["em"].curve.objectives)
    assert all(fits[0][name].curve.objectives[-1] < highest + 1e-3 for name in ("svi", "amortised", "mean_field"))


def test_curves_count_sweeps_and_seconds(fits):
    for name in ("em", "svi", "mean_field", "k_means"):
        assert fits[0][name].curve.sweeps == list(range(31))
    assert fits[0]["amortised"].curve.sweeps == list(range(3, 31)), "a tenth of the sweeps are the network's alone"
    nuts = fits[0]["nuts"].curve
    assert len(nuts.sweeps) == 71
    assert nuts.sweeps[-1] > 70
    for fit in fits[0].values():
        assert sorted(fit.curve.seconds) == fit.curve.seconds
        assert len(fit.curve.objectives) == len(fit.curve.seconds) == len(fit.curve.sweeps)


def test_each_method_but_the_chain_has_a_run_folder(fits):
    found, folder = fits
    assert {path.name for path in folder.iterdir()} == set(ALL) - {"nuts"}
    for name in found.keys() - {"nuts"}:
        assert (folder / name / "metrics.csv").is_file()
        assert f"method: {name}" in (folder / name / "config.yaml").read_text()


def test_em_through_the_trainer_is_em(fits):
    x = clouds(150, 0)[0]
    mixture = started(x, components=3, seed=0)
    history = em(copy.deepcopy(mixture), x, sweeps=30, tolerance=0, seed=None)
    mine = fits[0]["em"].curve.objectives
    for ours, theirs in zip(mine, history.objectives, strict=False):
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_k_means_begins_where_em_does(tmp_path):
    x, _ = clouds(150, 0)
    start = started(x, components=3, seed=0)
    fit = compare_mixtures(x, x, folder=tmp_path, methods=["k_means"], components=3, sweeps=1)["k_means"]
    inertia = torch.cdist(x, start.loc.detach()).square().amin(1).sum()
    spread = inertia / x.numel()
    elbo = -math.log(3) - 1 - (2 * math.pi * spread).log()
    assert fit.curve.objectives[0] == pytest.approx(float(elbo), abs=1e-9)


def test_covariances_of_a_posterior_are_those_of_its_mean_precision(tmp_path):
    prior = MarginalMixture(components=3, mean=torch.zeros(2), scale=torch.eye(2)).double()
    generator = torch.Generator().manual_seed(0)
    squares, below = (torch.rand(5, 3, size, dtype=torch.float64, generator=generator) for size in (2, 1))
    roots = prior.precision_root(squares, below)
    found = typical_covariances(prior, {"squares": squares, "below": below})
    assert found.allclose((roots @ roots.mT).mean(0).inverse())
    x, settings = clouds(60, 0)[0], {"methods": ["nuts"], "components": 2, "warmup": 2, "samples": 1}
    (fit,) = compare_mixtures(x, x, folder=tmp_path, **settings).values()
    assert fit.covariances.shape == (2, 2, 2)
    assert fit.covariances.allclose(fit.covariances.mT)


def test_a_reordered_fit_is_the_same_mixture(fits):
    fit = fits[0]["em"]
    other = fit.reordered(torch.tensor([2, 0, 1]))
    assert other.means.equal(fit.means[[2, 0, 1]])
    assert other.weights.equal(fit.weights[[2, 0, 1]])
    assert other.responsibilities.equal(fit.responsibilities[:, [2, 0, 1]])
    assert other.held_out is fit.held_out


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    x, _ = clouds(60, 0)
    runs = [
        compare_mixtures(x, x, folder=tmp_path / name, methods=["svi", "amortised"], components=2, sweeps=2)
        for name in ("one", "two")
    ]
    for name in runs[0]:
        assert runs[0][name].means.equal(runs[1][name].means)


def test_a_timed_step_is_the_step_with_a_watch():
    class Once:
        module = torch.nn.Linear(1, 1)
        ends = 0

        def __call__(self, batch):
            return {"loss": batch.sum()}

        def epoch_end(self):
            self.ends += 1

        def state_dict(self):
            return {"ends": self.ends}

        def load_state_dict(self, state):
            self.ends = state["ends"]

    step = TimedStep(Once())
    assert step.module is Once.module
    assert step(torch.ones(3))["loss"] == 3
    step.epoch_end()
    assert step.seconds > 0
    other = TimedStep(Once())
    other.load_state_dict(step.state_dict())
    assert (other.seconds, other.step.ends) == (step.seconds, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["em", "vb"]}, r"\['vb'\]: it knows em, svi, amortised"),
        ({"methods": ["em", "em"]}, "name each one once"),
        ({"methods": []}, "at least one"),
        ({"components": 61}, "as many training data as components"),
    ],
)
def test_refusals(settings, message, tmp_path):
    x, _ = clouds(60, 0)
    with pytest.raises(ValueError, match=message):
        compare_mixtures(x, x, folder=tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_data_that_are_no_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match="real numbers of shapes"):
        compare_mixtures(torch.ones(5, 2), torch.ones(5, 3), folder=tmp_path)


@pytest.mark.parametrize(
    ("x", "components"),
    [
        (torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), 2),
        (torch.randn(30, 1, generator=torch.Generator().manual_seed(0)).double(), 2),
        (torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).double(), 1),
        (torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).double(), 2),
        (torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double().repeat(10, 1), 3),
    ],
    ids=["float32", "one dimension", "one component", "fewer data than dimensions", "repeated data"],
)
def test_corners_give_finite_numbers(x, components, tmp_path):
    fits = compare_mixtures(x, x[:3], folder=tmp_path, components=components, sweeps=2, warmup=3, samples=2)
    for fit in fits.values():
        parts = (fit.weights, fit.means, fit.covariances, fit.responsibilities, fit.train, fit.held_out)
        assert all(part.isfinite().all() for part in parts), fit.method
        assert {part.dtype for part in parts} == {x.dtype}, fit.method
