# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every distribution over levels promises: it sums to one, its samples fit its scores, and it speaks Pyro."""

import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate

from tests.cases import DISTRIBUTIONS

DTYPES = [torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]
STANDARD_ERRORS = 5  # a test of chance fails once in two million draws of its seed, and its seed is fixed


def table(p):
    """Values along a new first dimension, and their log-probabilities."""
    values = p.enumerate_support()
    return values, p.log_prob(values)


def parameters(p):
    """What the constructor was given; of torch's two names for one thing, the logits."""
    given = {name: getattr(p, name) for name in p.arg_constraints if name in vars(p)}
    return {name: value for name, value in given.items() if name != "probs" or "logits" not in given}


@pytest.fixture(params=DISTRIBUTIONS)
def build(request):
    return DISTRIBUTIONS[request.param]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_to_one(build, dtype, device):
    values, log_prob = table(build(dtype=dtype, device=device))
    assert (values.dtype, log_prob.dtype) == (torch.int64, dtype)
    assert (values.device, log_prob.device) == (log_prob.device, values.device)
    zero = torch.zeros(3, 2, dtype=dtype, device=device)
    torch.testing.assert_close(log_prob.logsumexp(0), zero, atol=20 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments_are_those_of_the_table(build, dtype, device):
    p = build(dtype=dtype, device=device)
    values, log_prob = table(p)
    weights, levels = log_prob.double().exp(), values.double()
    mean = (weights * levels).sum(0)
    tolerance = {"rtol": 200 * torch.finfo(dtype).eps, "atol": 200 * torch.finfo(dtype).eps}
    torch.testing.assert_close(p.mean.double(), mean, **tolerance)
    torch.testing.assert_close(p.variance.double(), (weights * (levels - mean).square()).sum(0), **tolerance)
    torch.testing.assert_close(p.entropy().double(), -(weights * log_prob).sum(0), **tolerance)
    assert p.mean.dtype == p.variance.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_are_levels_with_the_mean_that_is_scored(build, dtype, device):
    p = build(dtype=dtype, device=device)
    x = p.sample((20_000,))
    assert (x.dtype, x.shape) == (torch.int64, (20_000, 3, 2))
    assert p.support.check(x).all()
    off = (x.double().mean(0) - p.mean).abs()
    assert (off <= STANDARD_ERRORS * (p.variance / len(x)).sqrt()).all()


def test_samples_are_as_frequent_as_they_are_probable(build):
    p = build(dtype=torch.float64)
    values, log_prob = table(p)
    x = p.sample((20_000,))
    frequency = (x.unsqueeze(0) == values.unsqueeze(1)).double().mean(1)
    probability = log_prob.exp()
    error = (probability * (1 - probability) / len(x)).sqrt()
    often = probability * len(x) > 25  # where a count is about normal
    assert ((frequency - probability).abs() <= STANDARD_ERRORS * error)[often].all()


def test_samples_of_every_shape(build):
    p = build()
    assert p.sample().shape == (3, 2)
    assert p.sample([4]).shape == (4, 3, 2)
    assert p.expand((0, 3, 2)).sample().shape == (0, 3, 2)
    assert not p.has_rsample
    assert not p.sample().requires_grad


@pytest.mark.parametrize("dtype", [*INTEGERS, *DTYPES], ids=str)
def test_values_may_have_any_dtype(build, dtype):
    p = build()
    x = p.sample((10,)).clamp(max=127)
    assert torch.equal(p.log_prob(x.to(dtype)), p.log_prob(x))
    assert p.log_prob(x.to(dtype)).dtype == torch.float32


def test_values_outside_are_refused(build):
    p = build()
    top = p.enumerate_support(expand=False).max()
    for wrong in (top + 1, torch.tensor(-1), torch.tensor(0.5), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="support|domain"):
            p.log_prob(wrong)


def test_parameters_that_are_not_numbers_are_refused(build):
    p = build()
    wrong = {name: torch.full_like(value, torch.nan) for name, value in parameters(p).items()}
    options = {"levels": p.levels} if hasattr(p, "levels") else {}
    with pytest.raises(ValueError, match="constraint"):
        type(p)(**wrong, **options)
    type(p)(**wrong, **options, validate_args=False)


def test_expands_without_copying(build):
    p = build()
    given = parameters(p)
    q = p.expand((4, 3, 2))
    assert all(getattr(q, name).data_ptr() == value.data_ptr() for name, value in given.items())
    assert type(q) is type(p)
    assert (q.batch_shape, q.event_shape) == ((4, 3, 2), ())
    x = q.sample()
    assert torch.equal(q.log_prob(x), p.log_prob(x))
    for attribute in ("mean", "variance"):
        torch.testing.assert_close(getattr(q, attribute)[1], getattr(p, attribute))
    with pytest.raises(ValueError, match="support|domain"):
        q.log_prob(x - 100_000)


def test_enumerates_its_support(build):
    p = build()
    values = p.enumerate_support(expand=False)
    assert values.shape[1:] == (1, 1)
    assert torch.equal(p.enumerate_support(), values.expand(-1, 3, 2))
    assert torch.equal(values.flatten(), torch.arange(len(values)))
    assert p.has_enumerate_support


def test_elements_are_independent(build):
    p = build()
    x = p.sample()
    for name, value in parameters(p).items():
        changed = value.clone()
        changed[0] = changed[0].flip(-1) * 0.9
        given = {**parameters(p), name: changed}
        options = {"levels": p.levels} if hasattr(p, "levels") else {}
        q = type(p)(**given, **options)
        assert torch.equal(q.log_prob(x)[1:], p.log_prob(x)[1:])
        assert torch.equal(q.mean[1:], p.mean[1:])


def test_gradients_reach_every_parameter(build):
    p = build()
    leaves = {name: value.clone().requires_grad_() for name, value in parameters(p).items()}
    options = {"levels": p.levels} if hasattr(p, "levels") else {}
    q = type(p)(**leaves, **options)
    q.log_prob(p.sample((50,))).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), name
        assert (leaf.grad != 0).all(), name


def test_is_pickled(build):
    p = build()
    q = pickle.loads(pickle.dumps(p))
    x = p.sample()
    assert torch.equal(q.log_prob(x), p.log_prob(x))


def test_nothing_is_left_on_the_default_device(build):
    """A tensor that is made on the CPU on the way cannot be combined with one that has no storage."""
    with pyro.validation_enabled(False):
        p = build(device="meta")
        results = [p.log_prob(p.sample((4,))), p.enumerate_support(), p.mean, p.variance, p.entropy()]
    assert all(result.is_meta for result in results)


def test_is_a_site_of_a_pyro_program(build):
    """Enumerated in a guide-less program, the observed total of its mass is one: the marginal of a site is no news."""
    p = build(dtype=torch.float64)

    @config_enumerate
    def model(y):
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            x = pyro.sample("x", p)
            pyro.sample("y", dist.Normal(0.1 * x.double(), 1.0), obs=y)

    y = torch.randn(3, 2, dtype=torch.float64)
    values, log_prob = table(p)
    exact = (log_prob + dist.Normal(0.1 * values.double(), 1.0).log_prob(y)).logsumexp(0).sum()
    elbo = -TraceEnum_ELBO(max_plate_nesting=2).loss(model, lambda y: None, y)
    assert elbo == pytest.approx(exact.item(), rel=1e-9)
