# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What holds for every control of the KL: it trains in stock Pyro, copies, scales, and refuses what it cannot do."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal

from pyro_dgm.infer import (
    ELBO,
    IWAE,
    Capacity,
    FreeBits,
    KLBalance,
    Objective,
    SiteWeights,
)
from tests.cases import KL_CONTROLS
from tests.infer.normals import Normals, close, run, same
from tests.oracles import within


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KL_CONTROLS)
def test_every_control_trains_in_stock_pyro(name, dtype, particles, device):
    pair = Normals(dtype=dtype, device=device)
    bound, x = ELBO(particles, kl=KL_CONTROLS[name]()), pair.data(8)
    assert bound.per_datum(pair.model, pair.guide, x).shape == (8,)
    assert bound.per_datum(pair.model, pair.guide, x).dtype == dtype

    def model(x):
        pyro.module("pair", pair)
        pair.model(x)

    before = [parameter.detach().clone() for parameter in pair.parameters()]
    svi = SVI(model, pair.guide, pyro.optim.Adam({"lr": 0.01}), bound)
    assert math.isfinite(svi.step(x))
    assert not same(before, list(pair.parameters()))


@pytest.mark.parametrize("name", KL_CONTROLS)
def test_every_control_can_be_copied_and_saved(name):
    pair, bound = Normals(), ELBO(2, kl=KL_CONTROLS[name]())
    x = pair.data(8)
    expected = run(bound, pair, x)
    assert same(run(copy.deepcopy(bound), pair, x), expected)
    assert same(run(pickle.loads(pickle.dumps(bound)), pair, x), expected)


@pytest.mark.parametrize("name", KL_CONTROLS)
def test_every_control_reports_the_plain_terms(name):
    pair = Normals()
    x, reports = pair.data(8), []
    for kl in (None, KL_CONTROLS[name]()):
        torch.manual_seed(0)
        reports.append(Objective(pair.model, pair.guide, ELBO(kl=kl))(x))
    assert all(torch.equal(reports[0][key], reports[1][key]) for key in ("log_p.x", "log_p.z", "log_q.z"))


@pytest.mark.parametrize("name", KL_CONTROLS)
def test_a_scale_of_all_sites_multiplies_the_loss(name):
    pair, bound = Normals(), ELBO(kl=KL_CONTROLS[name]())
    x = pair.data(8)
    expected = run(bound, pair, x)
    scaled = copy.deepcopy(pair)
    model, guide = poutine.scale(scaled.model, scale=2.5), poutine.scale(scaled.guide, scale=2.5)
    torch.manual_seed(0)
    loss = bound.differentiable_loss(model, guide, x)
    assert close([loss, *torch.autograd.grad(loss, list(scaled.parameters()))], [2.5 * part for part in expected])


@pytest.mark.parametrize("name", KL_CONTROLS)
def test_a_closed_form_has_no_score_to_leave_out(name):
    pair = Normals()
    x, kl = pair.data(40), KL_CONTROLS[name]()
    landed, plain = (ELBO(2, kl=kl, analytic_kl=True, gradient=gradient) for gradient in ("stl", "total"))
    assert close(run(landed, pair, x), run(plain, pair, x))


@pytest.mark.parametrize("kl", [KLBalance(0.8), SiteWeights({"z": 3.0}), FreeBits(0.2), FreeBits(5.0)])
def test_sticking_the_landing_has_the_same_mean_where_terms_are_sampled(kl):
    pair, gradients = Normals(), {}
    x = pair.data(40)
    for gradient in ("total", "stl"):
        bound = ELBO(kl=kl, analytic_kl=False, gradient=gradient)
        found = [run(bound, pair, x, seed=seed) for seed in range(60)]
        gradients[gradient] = torch.stack([torch.cat([part.flatten() for part in each]) for each in found])
    assert within(gradients["stl"] - gradients["total"], 0.0)


CHARGES = {"Capacity": 2.0, "Capacity (of each datum)": 2.0, "KLBalance": 0.2, "SiteWeights": 3.0}  # of each nat
SAMPLED = {**KL_CONTROLS, "FreeBits (of each channel)": lambda: FreeBits(0.5, per="channel")}


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", SAMPLED)
def test_sticking_the_landing_has_no_variance_at_the_best_posterior(name, particles):
    """Where a nat costs c, that is proportional to p(z) p(x | z)^(1 / c): every single gradient is zero there."""
    charge, noise, x = CHARGES.get(name, 1.0), 0.1, torch.tensor([[4.0, -5.0], [6.0, 4.5]], dtype=torch.float64)
    shrink = 1 / (1 + charge * noise**2)
    location = (shrink * x).requires_grad_()  # far from the prior, so no threshold is near
    log_scale = torch.full_like(x, charge * noise**2 * shrink).log().mul(0.5).requires_grad_()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(location, log_scale.exp()).to_event(1))

    for gradient, zero in (("stl", True), ("dreg", True), ("total", False)):
        bound = ELBO(particles, kl=SAMPLED[name](), analytic_kl=False, gradient=gradient)
        parts = torch.autograd.grad(bound.differentiable_loss(model, guide, x), [location, log_scale])
        assert all((part.abs() < 1e-6).all() == zero for part in parts)


@pytest.mark.parametrize("kl", [FreeBits(0.5), Capacity(1.0)])
def test_a_threshold_refuses_scales_inside_the_terms(kl):
    pair = Normals()

    def model(x):
        with poutine.scale(scale=0.1):
            return pair.model(x)

    with pytest.raises(ValueError, match=r"sites that do not share one scale.*beta="):
        ELBO(kl=kl).loss(model, pair.guide, pair.data(4))


@pytest.mark.parametrize("kl", [FreeBits(0.5), FreeBits(0.5, per="dimension"), KLBalance()])
def test_a_variable_of_the_guide_alone_is_refused(kl):
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = AutoNormal(model)
    with pytest.raises(ValueError, match=r"have no prior in the model.*per=\"all\""):
        ELBO(kl=kl).loss(model, guide)
    assert math.isfinite(ELBO(kl=FreeBits(0.5, per="all")).loss(model, guide))


def test_only_an_elbo_takes_a_control():
    with pytest.raises(TypeError, match="kl"):
        IWAE(5, kl=FreeBits(0.5))


@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("bound", [ELBO, IWAE])
def test_a_negative_beta_is_refused(bound, beta):
    with pytest.raises(ValueError, match="beta="):
        bound(beta=beta)


def test_beta_multiplies_the_cost():
    pair = Normals()
    x = pair.data(8)
    torch.manual_seed(0)
    free = ELBO(beta=0.0, kl=FreeBits(5.0)).per_datum(pair.model, pair.guide, x)
    torch.manual_seed(0)
    charged = ELBO(beta=0.5, kl=FreeBits(5.0)).per_datum(pair.model, pair.guide, x)
    assert torch.allclose(free - charged, torch.full((8,), 2.5, dtype=torch.float64))
