# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed estimates against models whose log p(x) is known, for every kind of latent variable that they take."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.infer.autoguide import AutoNormal

from pyro_dgm.distributions import FlowPosterior
from pyro_dgm.evaluate import ais, bdmc, log_likelihood, random_subset, sandwich
from pyro_dgm.evaluate.annealing import inverse_temperatures
from pyro_dgm.evaluate.latent_path import LatentPath
from pyro_dgm.transforms import Planar, SplineCoupling
from tests.cases import MODELS
from tests.evaluate.stories import Story, digits
from tests.oracles import LinearGaussian

FEW = {"num_steps": 40, "num_chains": 8, "num_leapfrog": 5}


def right_within_its_error(found, exact):
    """Whether each value is right within 5 standard errors, as its own weights tell them."""
    error = (1 / found.nll.ess - 1 / len(found.log_w)).clamp_min(0).sqrt() + 1e-6
    return bool(((found.nll.values + exact).abs() < 5 * error + 0.02).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_the_linear_gaussian_model(device, dtype, start):
    oracle = LinearGaussian(widen=2.0, dtype=dtype, device=device)
    x = oracle.data(10)
    found = ais(oracle.model, oracle.guide, x, start=start, num_steps=60, num_chains=32, num_leapfrog=5)
    assert right_within_its_error(found, oracle.log_prob(x).detach().double().cpu())
    assert found.nll.values.dtype == found.log_w.dtype == torch.float64
    assert found.log_w.shape == (32, 10)
    assert found.acceptance.shape == (59, 10)
    assert 0.5 < found.acceptance.mean() < 0.8
    assert found.nll.k_hat.shape == (10,)


def test_two_modes_are_found_from_the_prior():
    x = torch.tensor([0.0, 3.0, -5.0], dtype=torch.float64)
    logits, loc = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([-4.0, 4.0], dtype=torch.float64)

    def mixture(scale):
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", mixture(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    found = ais(model, None, x, num_steps=60, num_chains=64, num_leapfrog=5)
    assert right_within_its_error(found, mixture(1.25**0.5).log_prob(x))


def test_positive_and_simplex_variables():
    counts = torch.tensor([[0.0, 2.0, 5.0], [3.0, 3.0, 1.0]], dtype=torch.float64)
    shape, rate, concentration = (torch.tensor(v, dtype=torch.float64) for v in (2.5, 1.5, [1.0, 2.0, 0.7]))

    def gamma_poisson(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(shape, rate))
            pyro.sample("x", dist.Poisson(z), obs=x)

    found = ais(gamma_poisson, None, counts[:, 1], num_steps=50, num_chains=32, num_leapfrog=5)
    exact = dist.GammaPoisson(shape, rate).log_prob(counts[:, 1])
    assert right_within_its_error(found, exact)

    def dirichlet_multinomial(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(concentration))
            pyro.sample("x", dist.Multinomial(7, z), obs=x)

    found = ais(dirichlet_multinomial, None, counts, num_steps=50, num_chains=32, num_leapfrog=5)
    exact = dist.DirichletMultinomial(concentration, torch.tensor(7.0)).log_prob(counts)
    assert right_within_its_error(found, exact)


def test_supports_that_depend_on_other_variables():
    x = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            width = pyro.sample("width", dist.Exponential(torch.ones((), dtype=x.dtype)))
            z = pyro.sample("z", dist.Uniform(0.0, width))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    found = ais(model, None, x, num_steps=60, num_chains=64, num_leapfrog=5)
    width = torch.linspace(1e-4, 30, 100_001, dtype=x.dtype).unsqueeze(1)
    normal = dist.Normal(x, 0.7)
    density = torch.exp(-width) * (normal.cdf(width) - normal.cdf(torch.zeros_like(x))) / width
    assert right_within_its_error(found, torch.trapezoid(density, width.squeeze(1), dim=0).log())


def test_one_step_is_importance_sampling():
    oracle = LinearGaussian()
    x = oracle.data(6)
    found = ais(oracle.model, oracle.guide, x, num_steps=1, num_chains=7, start="guide")
    torch.testing.assert_close(found.nll.values, -oracle.log_prob(x).detach())
    assert found.acceptance.shape == (0, 6)
    assert str(found).endswith("(AIS, 1 step, 7 chains, 6 data)")


def test_digits_are_explained_better_than_by_importance_sampling():
    story, (x, _) = Story(), digits(12)
    found = ais(story.model, story.guide, x, **FEW)
    reference = log_likelihood(story.model, story.guide, x, num_samples=4000)
    assert (found.nll.values < reference.values + 2.0).all()  # the guide knows nothing: few of its samples count
    assert "8 chains, 12 images), acceptance 0." in str(found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["acceptance"]["lowest_datum"] > 0.3


@pytest.mark.parametrize(("batch_size", "max_elements"), [(100, 2**22), (3, 2**22), (100, 30), (100, 1)])
def test_batches_and_groups_of_chains_lose_nothing(monkeypatch, batch_size, max_elements):
    oracle, sizes = LinearGaussian(), []
    draw = LatentPath.draw
    monkeypatch.setattr(LatentPath, "draw", lambda path: sizes.append(path.chains * len(path.x)) or draw(path))
    x = oracle.data(4)
    options = {"num_steps": 10, "num_chains": 15, "num_leapfrog": 3}
    found = ais(oracle.model, None, x, batch_size=batch_size, max_elements=max_elements, **options)
    assert found.log_w.shape == (15, 4)
    assert found.acceptance.shape == (9, 4)
    assert (found.nll.values + oracle.log_prob(x).detach()).abs().max() < 4
    assert max(sizes[2:]) <= max(1, max_elements)


def test_nothing_of_the_callers_is_disturbed():
    story, (x, _) = Story(), digits(3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    options = {"num_steps": 5, "num_chains": 2, "num_leapfrog": 2}
    first = ais(story.model, story.guide, x, **options)
    assert torch.equal(torch.rand(3), expected)
    again = ais(story.model, story.guide, x, **options)
    assert torch.equal(first.log_w, again.log_w)
    assert story.training
    assert all(weight.grad is None for weight in story.parameters())
    assert torch.is_grad_enabled()
    assert torch.distributions.Distribution._validate_args
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("name", ["VAE (gated)", "VAE (mixture prior)"])
def test_models_of_the_package(name):
    torch.manual_seed(0)
    vae, x = MODELS[name](), torch.randint(0, 2, (3, 8, 8))
    for start in ("prior", "guide"):
        found = ais(vae.model, vae.guide, x, start=start, **FEW)
        reference = log_likelihood(vae.model, vae.guide, x, num_samples=2000)
        assert (found.nll.values - reference.values).abs().max() < 0.5


@pytest.mark.parametrize("flow", [Planar, SplineCoupling])
def test_a_path_may_start_from_a_flow(flow):
    torch.manual_seed(0)
    oracle, posterior = LinearGaussian(), FlowPosterior(2, context=3, flow=flow).double()
    embed = torch.randn(4, *posterior.in_shape, dtype=torch.float64)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x @ embed))

    x = oracle.data(3)
    found = ais(oracle.model, guide, x, start="guide", num_steps=100, num_chains=24, num_leapfrog=4)
    assert right_within_its_error(found, oracle.log_prob(x).detach())


def test_a_subset_and_a_fixed_step_size():
    oracle = LinearGaussian()
    x = oracle.data(50)
    found = ais(oracle.model, None, x, num_data=5, seed=3, step_size=0.3, **FEW)
    assert right_within_its_error(found, oracle.log_prob(x[random_subset(50, 5, seed=3)]).detach())


def test_temperatures():
    for schedule in ("linear", "sigmoid"):
        betas = inverse_temperatures(50, schedule)
        assert len(betas) == 51
        assert betas[0] == 0
        assert betas[-1] == 1
        assert betas == sorted(betas)
    sigmoid = inverse_temperatures(50)
    assert sigmoid[1] < 0.2 / 50
    assert sigmoid[25] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"num_chains": 0}, "num_chains=0"),
        ({"num_leapfrog": 0}, "num_leapfrog=0"),
        ({"step_size": -1.0}, "step_size=-1.0"),
        ({"step_size": math.nan}, "step_size=nan"),
        ({"schedule": "cosine"}, "cosine"),
        ({"start": "end"}, "'end'"),
        ({"num_data": 9}, "num_data=9"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    oracle = LinearGaussian()
    for measure in (ais, sandwich):
        with pytest.raises((ValueError, TypeCheckError), match=message):  # the second while annotations are checked
            measure(oracle.model, oracle.guide, oracle.data(5), **options)


def test_programs_that_cannot_be_annealed_are_refused():
    oracle = LinearGaussian()
    x = oracle.data(4)

    def discrete(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def shared(x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def exact(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[:, 0])

    for model, message in [(discrete, r"\['z'\] are discrete"), (shared, "exactly one"), (exact, "log_likelihood")]:
        with pytest.raises(ValueError, match=message):
            ais(model, None, x, **FEW)
    with pytest.raises(ValueError, match="must not subsample"):
        ais(LinearGaussian(subsample=1).model, None, x, **FEW)
    with pytest.raises(ValueError, match="exactly one"):
        ais(LinearGaussian(outside=True).model, None, x, **FEW)
    with pytest.raises(ValueError, match="the guide is None"):
        ais(oracle.model, None, x, start="guide")
    with pytest.raises(ValueError, match="the guide \\[\\]"):
        ais(oracle.model, lambda x: None, x, start="guide")
    with pytest.raises(ValueError, match="AutoNormal draws auxiliary"):
        ais(oracle.model, AutoNormal(oracle.model), x, start="guide")
    with pytest.raises(ValueError, match="x is empty"):
        ais(oracle.model, None, x[:0])


def test_a_sandwich_of_real_data_says_that_it_is_heuristic():
    oracle = LinearGaussian()
    x = oracle.data(6)
    found = sandwich(oracle.model, None, x, **FEW)
    assert not found.exact
    assert found.lower.name == "NLL >~"
    assert "heuristic" in str(found)
    assert found.gap.name == "gap ~"
    assert (found.lower.values + oracle.log_prob(x).detach()).abs().max() < 2
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["exact"] is False


def test_dreamt_data_have_an_honest_sandwich():
    story = Story()
    found = bdmc(story.model, size=8, **FEW)
    assert found.exact
    assert found.upper.noun == "image"
    assert found.lower.name == "NLL >="
    assert abs(found.gap.mean) < 1.0
    again = bdmc(story.model, story.guide, size=8, start="guide", **FEW)
    assert abs(again.upper.mean - found.upper.mean) < 1.0
    with pytest.raises(ValueError, match="size=0"):
        bdmc(story.model, size=0)
    with pytest.raises(ValueError, match="site 'y'"):
        bdmc(story.model, site="y")


def test_posterior_samples_are_one_for_each_datum():
    oracle = LinearGaussian()
    x = oracle.data(5)
    with pytest.raises(ValueError, match=r"\['z'\] are not one for each of the 5 data"):
        sandwich(oracle.model, None, x, posterior_samples={"z": x[:3]}, **FEW)
    with pytest.raises(ValueError, match=r"\['z'\] are missing"):
        sandwich(oracle.model, None, x, posterior_samples={"y": x}, **FEW)
