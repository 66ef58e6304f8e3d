# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Importance-sampled log-likelihoods against models whose log p(x) is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam, pyro_method

from pyro_dgm.evaluate import log_likelihood, random_subset
from pyro_dgm.infer import log_weights
from tests.evaluate.stories import Story, digits
from tests.oracles import LinearGaussian


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_exact_posterior_gives_the_exact_answer(device, dtype, tolerance):
    oracle = LinearGaussian(dtype=dtype, device=device)
    x = oracle.data(23)
    found = log_likelihood(oracle.model, oracle.guide, x, num_samples=37, batch_size=10)
    exact = -oracle.log_prob(x).detach().double().cpu()
    assert found.values.dtype == torch.float64
    torch.testing.assert_close(found.values, exact, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.ess, torch.full((23,), 37.0, dtype=torch.float64), atol=1e-3, rtol=1e-3)
    assert str(found).endswith("(IS, 37 samples, 23 data)")


def test_a_wrong_proposal_is_right_within_its_error():
    oracle = LinearGaussian(widen=3.0)
    x = oracle.data(200)
    found = log_likelihood(oracle.model, oracle.guide, x, num_samples=2000)
    above = found.values + oracle.log_prob(x).detach()  # each has variance close to 1 / ess - 1 / K
    error = (1 / found.ess - 1 / 2000).sqrt()
    assert (above.abs() < 5 * error).all()
    assert above.mean() > -5 * error.square().mean().sqrt() / math.sqrt(200)
    assert (found.ess < 1900).all()
    assert (found.ess > 100).all()


def test_a_poor_proposal_never_flatters():
    oracle = LinearGaussian(widen=0.2)
    x = oracle.data(400)
    above = log_likelihood(oracle.model, oracle.guide, x, num_samples=5).values + oracle.log_prob(x).detach()
    assert above.mean() > 5 * above.std() / math.sqrt(400)


def test_chunks_do_not_change_the_answer():
    oracle = LinearGaussian()
    x = oracle.data(9)
    whole = log_likelihood(oracle.model, oracle.guide, x, num_samples=13)
    for batch_size, max_elements in [(1, 10**6), (5, 40), (9, 1), (100, 36)]:
        found = log_likelihood(
            oracle.model, oracle.guide, x, num_samples=13, batch_size=batch_size, max_elements=max_elements
        )
        torch.testing.assert_close(found.values, whole.values)
        torch.testing.assert_close(found.ess, whole.ess)


class Wide(LinearGaussian):
    """Makes a tensor of 200 elements per particle and datum, and remembers how large it became."""

    largest = 0

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            wide = (z @ self.weight.mT).unsqueeze(-1) + z.new_zeros(50)  # (K, B, 4, 50)
            self.largest = max(self.largest, wide.numel())
            pyro.sample("x", dist.Normal(wide.mean(-1), self.noise).to_event(1), obs=x)


@pytest.mark.parametrize("max_elements", [1, 500, 1000, 10_000])
def test_memory_is_bounded_and_no_sample_is_lost(monkeypatch, max_elements):
    calls = []

    def spy(model, guide, x, *, particles=1, **options):
        calls.append((particles, len(x)))
        return log_weights(model, guide, x, particles=particles, **options)

    monkeypatch.setattr("pyro_dgm.evaluate.weigh.log_weights", spy)
    wide = Wide()
    x = wide.data(7)
    found = log_likelihood(wide.model, wide.guide, x, num_samples=25, batch_size=3, max_elements=max_elements)
    torch.testing.assert_close(found.values, -wide.log_prob(x).detach())
    assert calls[:3] == [(1, 1), (1, 2), (1, 1)]  # these measure the footprint and count the plates
    assert sum(particles * data for particles, data in calls[3:]) == 25 * 7
    assert all(200 * particles * data <= max(200, max_elements) for particles, data in calls[3:])
    assert wide.largest <= max(400, max_elements)


def test_the_guide_runs_once_for_as_many_particles_as_fit():
    rows = []
    oracle = LinearGaussian()

    def guide(x):
        rows.append(len(x))
        oracle.guide(x)

    x = oracle.data(6)
    log_likelihood(oracle.model, guide, x, num_samples=50, max_elements=4 * 50)
    assert rows[3:] == [1] * 6
    rows.clear()
    log_likelihood(oracle.model, guide, x, num_samples=50, max_elements=4 * 150)
    assert rows[3:] == [3, 3]


def test_scales_and_annealing_stay_out():
    x, _ = digits(20)
    plain, scaled = Story(), Story(scale=0.01)
    exact = log_likelihood(plain.model, plain.guide, x, num_samples=8)
    found = log_likelihood(scaled.model, scaled.guide, x, num_samples=8)
    torch.testing.assert_close(found.values, exact.values)
    assert str(found).endswith("(IS, 8 samples, 20 images)")


def test_a_subset_is_seeded_random_and_never_the_first():
    oracle = LinearGaussian()
    x = oracle.data(300)
    first, again, other = (
        log_likelihood(oracle.model, oracle.guide, x, num_samples=2, num_data=20, seed=seed) for seed in (1, 1, 2)
    )
    exact = -oracle.log_prob(x).detach()
    torch.testing.assert_close(first.values, again.values, atol=0, rtol=0)
    torch.testing.assert_close(first.values, exact[random_subset(300, 20, seed=1)])
    torch.testing.assert_close(other.values, exact[random_subset(300, 20, seed=2)])
    assert random_subset(300, 20, seed=1).max() > 150
    assert random_subset(300, 300, seed=1).tolist() == list(range(300))


def test_every_datum_is_equally_likely_to_be_chosen():
    chosen = torch.stack([torch.bincount(random_subset(10, 3, seed=seed), minlength=10) for seed in range(2000)])
    assert (chosen.sum(1) == 3).all()
    share = chosen.double().mean(0)
    assert ((share - 0.3).abs() < 5 * math.sqrt(0.3 * 0.7 / 2000)).all()


def test_nothing_of_the_callers_is_disturbed(device):
    story = Story().to(device)
    x = digits(6)[0].to(device)
    torch.manual_seed(5)
    expected = torch.rand(3, device=device), torch.rand(3)
    torch.manual_seed(5)
    first = log_likelihood(story.model, story.guide, x, num_samples=4)
    assert torch.equal(torch.rand(3, device=device), expected[0])
    assert torch.equal(torch.rand(3), expected[1])
    torch.rand(100)
    again = log_likelihood(story.model, story.guide, x, num_samples=4)
    torch.testing.assert_close(first.values, again.values, atol=0, rtol=0)
    assert all(module.training for module in story.modules())
    assert not list(pyro.get_param_store().keys())
    assert not first.values.requires_grad


class Gaussian(PyroModule):
    """p(x) = N(0, scale^2), with one parameter that is positive by constraint."""

    def __init__(self, scale):
        super().__init__()
        self.scale = PyroParam(torch.tensor(scale), constraint=dist.constraints.positive)

    @pyro_method
    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, self.scale), obs=x)

    @pyro_method
    def guide(self, x):
        return None


def test_a_module_is_judged_by_its_own_parameters():
    x = torch.randn(50)
    trained, other = Gaussian(1.0), Gaussian(7.0)
    svi = pyro.infer.SVI(trained.model, trained.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    for _ in range(20):
        svi.step(3 * x)
    assert trained.scale.item() > 1.5
    for module, scale in [(trained, trained.scale.item()), (other, 7.0)]:
        found = log_likelihood(module.model, module.guide, x, num_samples=1)
        torch.testing.assert_close(found.values.float(), -dist.Normal(0.0, scale).log_prob(x))
    assert list(pyro.get_param_store().keys()) == ["scale"]
    pyro.clear_param_store()


def test_dropout_is_off():
    story = Story()
    x, _ = digits(6)
    training = log_likelihood(story.model, story.guide, x, num_samples=4)
    story.eval()
    torch.testing.assert_close(log_likelihood(story.model, story.guide, x, num_samples=4).values, training.values)
    assert not any(module.training for module in story.modules())


def test_after_an_error_all_is_as_before():
    story = Story()

    def broken(x):
        raise RuntimeError("broken")

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(RuntimeError, match="broken"):
        log_likelihood(broken, story.guide, digits(3)[0], num_samples=2)
    assert torch.equal(torch.rand(3), expected)
    assert story.training
    assert torch.is_grad_enabled()


def test_impossible_data_cost_infinity_and_nan_is_refused():
    story = Story()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.factor("allowed", torch.where(x.flatten(1).sum(-1) > 300, -math.inf, 0.0))

    x, _ = digits(30)
    found = log_likelihood(model, story.guide, x, num_samples=3)
    forbidden = x.flatten(1).sum(-1) > 300
    assert forbidden.any()
    assert torch.equal(found.values.isposinf(), forbidden)
    assert (found.ess[forbidden] == 0).all()

    def poisoned(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.factor("nan", x.new_full((len(x),), math.nan, dtype=torch.float32))

    with pyro.validation_enabled(False), pytest.raises(ValueError, match="30 of 30 data .* NaN"):
        log_likelihood(poisoned, story.guide, x, num_samples=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_elements": 0}, "max_elements=0"),
        ({"num_data": 6}, "num_data=6 data were asked for and x has 5"),
        ({"num_data": 0}, "from 1 to 5"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        log_likelihood(oracle.model, oracle.guide, oracle.data(5), **options)


def test_empty_data_are_refused():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="x is empty"):
        log_likelihood(oracle.model, oracle.guide, oracle.data(5)[:0])


def test_a_pair_without_a_data_plate_is_refused():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None, None], torch.ones(x.shape)).to_event(2), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="pyro.plate"):
        log_likelihood(model, guide, torch.zeros(5, 4), num_samples=3)


def test_a_subsampling_plate_and_an_outside_site_are_refused():
    sub, out = LinearGaussian(subsample=1), LinearGaussian(outside=True)
    with pytest.raises(ValueError, match="one weight per particle and datum"):
        log_likelihood(sub.model, sub.guide, sub.data(6), num_samples=3)
    with pytest.raises(ValueError, match="'outside'.* belong to no datum"):
        log_likelihood(out.model, out.guide, out.data(6), num_samples=3)


def test_a_guide_that_misses_a_site_is_refused():
    story = Story()
    with pytest.raises(ValueError, match="'z'"):
        log_likelihood(story.model, lambda x: None, digits(3)[0], num_samples=3)


@pytest.mark.parametrize("size", [1, 6])
def test_a_plate_of_unknown_size_is_measured(size):
    oracle = LinearGaussian(infinite=True)
    x = oracle.data(size)
    estimate = log_likelihood(oracle.model, oracle.guide, x, num_samples=7)
    assert torch.allclose(-estimate.values, oracle.log_prob(x), atol=1e-5)
