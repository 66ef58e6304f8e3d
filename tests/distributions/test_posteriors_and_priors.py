# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Posteriors have the scales they are named for; priors have a dtype and a device, and fit under Pyro's plates."""

import copy
import pickle

import pyro
import pytest
import torch
from jaxtyping import TypeCheckError
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from pyro_dgm.distributions import DiagonalNormal, NormalMixture, StandardNormal
from tests.cases import POSTERIORS, PRIORS


@pytest.fixture(params=PRIORS)
def build(request):
    return PRIORS[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_prior_is_where_its_module_is(build, dtype, device):
    p = build(3).to(device, dtype)()
    assert (p.batch_shape, p.event_shape) == ((), (3,))
    z = p.sample((5,))
    assert (z.dtype, z.device.type) == (dtype, device.type)
    assert (p.log_prob(z).shape, p.log_prob(z).dtype) == ((5,), dtype)


def test_a_prior_on_no_device_makes_no_tensor_elsewhere(build):
    with pyro.validation_enabled(False):
        p = build(3).to("meta")()
        assert p.log_prob(p.sample((5,))).is_meta


def test_a_prior_expands_under_plates(build):
    prior = build(3)

    def model(z=None):
        with pyro.plate("particles", 4, dim=-2), pyro.plate("data", 5, dim=-1):
            return pyro.sample("z", prior(), obs=z)

    z = model()
    assert z.shape == (4, 5, 3)
    trace = pyro.poutine.trace(model).get_trace(z)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], prior().log_prob(z))
    torch.testing.assert_close(prior().expand((4, 5)).log_prob(z), prior().log_prob(z))


def test_gradient_reaches_every_parameter_of_a_mixture():
    prior = NormalMixture(3, components=4)
    prior().log_prob(torch.randn(7, 3)).sum().backward()
    for name, parameter in prior.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_copies_of_a_prior_score_the_same(build):
    prior, other = build(3), build(3)
    other.load_state_dict(prior.state_dict())
    z = prior().sample((5,))
    for same in (other, copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        torch.testing.assert_close(same().log_prob(z), prior().log_prob(z))


def test_a_prior_starts_with_about_unit_variance(build):
    z = build(200)().sample((2000,))
    assert z.mean().abs() < 0.1
    assert z.var().item() == pytest.approx(1, abs=0.15)


def test_a_prior_needs_a_dimension(build):
    with pytest.raises(ValueError, match=r"got latent=\(0,\)"):
        build(0)


def test_a_mixture_integrates_to_one():
    prior = NormalMixture(2, components=3).double()
    grid = torch.linspace(-8, 8, 401, dtype=torch.float64)
    density = prior().log_prob(torch.cartesian_prod(grid, grid)).exp()
    assert density.sum().item() * (16 / 400) ** 2 == pytest.approx(1, abs=1e-6)


def test_a_mixture_needs_a_component():
    with pytest.raises(ValueError, match=r"NormalMixture got components=\(0,\)"):
        NormalMixture(3, components=0)


@pytest.mark.parametrize("name", [name for name in POSTERIORS if name.startswith("DiagonalNormal")])
def test_kl_to_the_standard_normal_is_in_closed_form(name, device):
    raw = torch.randn(5, 6, dtype=torch.float64, device=device)
    q = POSTERIORS[name](3)(raw)
    p = StandardNormal(3).to(device, torch.float64)()
    mean, variance = q.mean, q.variance
    exact = 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p.expand((5,))), exact)
    torch.testing.assert_close(kl_divergence(q, p), exact)


@pytest.mark.parametrize(
    ("scale", "formula"),
    [("softplus", softplus), ("exp", torch.exp), ("softplus_variance", lambda raw: softplus(raw).sqrt())],
)
def test_a_scale_is_what_its_name_says(scale, formula):
    raw = torch.randn(5, 6)
    q = DiagonalNormal(3, scale=scale)(raw)
    torch.testing.assert_close(q.mean, raw[:, :3])
    torch.testing.assert_close(q.stddev, formula(raw[:, 3:]))


def test_a_posterior_is_reparameterised():
    raw = torch.randn(5, 6, requires_grad=True)
    DiagonalNormal(3)(raw).rsample().sum().backward()
    assert (raw.grad != 0).all()


def test_an_unknown_scale_is_refused():
    with pytest.raises((ValueError, TypeCheckError), match="scale"):  # the second while annotations are checked
        DiagonalNormal(3, scale="cubic")
    with pytest.raises(ValueError, match="DiagonalNormal got in_shape="):
        DiagonalNormal(0)
