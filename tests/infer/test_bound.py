# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds as Pyro ELBOs: exact oracles, every plate and scale, and agreement with stock Pyro."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_dgm.infer import ELBO, IWAE, LogWeights
from pyro_dgm.infer.bound import require_data_plate
from tests.cases import BOUNDS
from tests.oracles import LinearGaussian, not_above

PARTICLES = [1, 2, 5, 50, 500]
SCALED = {
    "plain": (LinearGaussian(widen=1.8), None, 1.0),
    "subsampled": (LinearGaussian(widen=1.8, subsample=2), None, 1.0),
    "scaled": (LinearGaussian(widen=1.8), 0.25, 0.25),
    "subsampled and scaled": (LinearGaussian(widen=1.8, subsample=2), 0.25, 0.25),
    "infinite plate": (LinearGaussian(widen=1.8, infinite=True), None, 1.0),
    "site outside": (LinearGaussian(widen=1.8, outside=True), None, 1.0),
    "site outside, subsampled": (LinearGaussian(widen=1.8, subsample=2, outside=True), None, 1.0),
}


def pair(kind):
    oracle, scale, _ = SCALED[kind]
    if scale is None:
        return oracle.model, oracle.guide
    return pyro.poutine.scale(oracle.model, scale=scale), pyro.poutine.scale(oracle.guide, scale=scale)


def exact(kind, x):
    oracle, _, factor = SCALED[kind]
    outside = oracle.outside_log_prob() if oracle.outside else 0.0
    return factor * (oracle.log_prob(x).sum() + outside)


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("name", BOUNDS)
def test_the_exact_posterior_gives_log_p(name, particles, device):
    bound = BOUNDS[name](particles)
    oracle = LinearGaussian(device=device)
    x = oracle.data(8)
    assert torch.allclose(bound.per_datum(oracle.model, oracle.guide, x), oracle.log_prob(x), atol=1e-5)
    loss = oracle.log_prob(x).sum().item() * (1 if bound.upper else -1)
    assert bound.loss(oracle.model, oracle.guide, x).item() == pytest.approx(loss, abs=1e-5)


def test_iwae_is_a_bound_that_rises_with_particles_and_reaches_log_p(device):
    oracle = LinearGaussian(widen=1.8, device=device)
    x = oracle.data(5)
    rounds = 400  # independent estimates for each datum, all in one pass
    means, errors = [], []
    with torch.no_grad():
        for particles in PARTICLES:
            values = IWAE(particles).per_datum(oracle.model, oracle.guide, x.repeat(rounds, 1)).reshape(rounds, len(x))
            assert not_above(values, oracle.log_prob(x))
            means.append(values.mean(0))
            errors.append(values.std(0) / rounds**0.5)
    for i in range(1, len(PARTICLES)):
        slack = 5 * (errors[i] ** 2 + errors[i - 1] ** 2).sqrt()
        assert (means[i] >= means[i - 1] - slack).all()
    assert ((means[-1] - oracle.log_prob(x)).abs() < 0.02).all()
    assert (means[0] < oracle.log_prob(x) - 0.05).all()  # the guide is worse than the posterior, so there was a gap


@pytest.mark.parametrize("particles", PARTICLES)
@pytest.mark.parametrize("kind", SCALED)
def test_the_loss_never_promises_more_than_log_p(kind, particles):
    x = SCALED[kind][0].data(6)
    bound = IWAE(particles, max_plate_nesting=1)
    with torch.no_grad():
        losses = torch.stack([bound.loss(*pair(kind), x) for _ in range(40)])
    assert not_above(-losses, exact(kind, x))
    if particles == 500 and "subsampled" not in kind:
        assert (-losses.mean() - exact(kind, x)).abs() < 0.1 * SCALED[kind][2]


@pytest.mark.parametrize("bound", [ELBO(), ELBO(3), IWAE(3)], ids=["elbo", "elbo3", "iwae3"])
def test_a_subsample_estimates_the_full_loss_without_bias(bound):
    """With the exact posterior each minibatch gives its data's log p times N / B: no more, no less."""
    oracle = LinearGaussian(subsample=2)
    x = oracle.data(6)
    losses = torch.stack([bound.loss(oracle.model, oracle.guide, x) for _ in range(100)])
    error = losses.std() / 10
    assert (losses.mean() + oracle.log_prob(x).sum()).abs() < 5 * error


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("particles", [1, 3])
def test_elbo_agrees_with_stock_pyro_under_one_seed(kind, particles):
    oracle = SCALED[kind][0]
    x = oracle.data(6)
    stock = Trace_ELBO(particles, max_plate_nesting=1, vectorize_particles=True)
    ours = ELBO(particles, max_plate_nesting=1)
    results = []
    for bound in (stock, ours):
        torch.manual_seed(3)
        loss = bound.differentiable_loss(*pair(kind), x)
        results.append((float(loss.detach()), torch.autograd.grad(loss, oracle.weight)[0]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4)


def test_elbo_takes_sites_of_different_scales_as_stock_pyro_does():
    oracle = LinearGaussian(widen=1.5)
    x = oracle.data(6)

    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=0.3):
                z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ oracle.weight.mT, oracle.noise).to_event(1), obs=x)

    guide = pyro.poutine.scale(oracle.guide, scale=0.3)
    losses = []
    for bound in (Trace_ELBO(2, max_plate_nesting=1, vectorize_particles=True), ELBO(2, max_plate_nesting=1)):
        torch.manual_seed(0)
        losses.append(float(bound.loss(model, guide, x)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.manual_seed(0)
    beta = ELBO(2, beta=0.3, max_plate_nesting=1)
    assert float(beta.loss(oracle.model, oracle.guide, x)) == pytest.approx(losses[0], rel=1e-6)
    with pytest.raises(ValueError, match="do not share one scale"):
        IWAE(2).loss(model, guide, x)


def global_model(x, *, subsample=None):
    mean = pyro.sample("mean", dist.Normal(torch.tensor(0.0).double(), 1.0))
    with pyro.plate("data", len(x), subsample_size=subsample) as index:
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x[index])


def global_guide(x, *, subsample=None):
    pyro.sample("mean", dist.Normal(x.sum() / (len(x) + 1) + 0.1, 1.3 * (len(x) + 1) ** -0.5))


def test_a_global_latent_variable_is_bounded_as_a_whole():
    x = torch.randn(6).double()
    exact = dist.MultivariateNormal(torch.zeros(6).double(), (torch.eye(6) + 1).double()).log_prob(x)
    bound = IWAE(500)
    losses = torch.stack([bound.loss(global_model, global_guide, x) for _ in range(40)])
    assert not_above(-losses, exact)
    assert (losses.mean() + exact).abs() < 0.02
    with pytest.raises(ValueError, match="No plate encloses"):
        bound.per_datum(global_model, global_guide, x)


def test_a_global_latent_variable_with_a_subsample_needs_a_linear_bound():
    x = torch.randn(6).double()
    with pytest.raises(ValueError, match="do not share one scale"):
        IWAE(2).loss(global_model, global_guide, x, subsample=2)
    losses = []
    for bound in (Trace_ELBO(), ELBO()):
        torch.manual_seed(1)
        losses.append(float(bound.loss(global_model, global_guide, x, subsample=2)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_ragged_last_batch_needs_no_new_bound():
    oracle = LinearGaussian()
    bound = IWAE(3)
    for size in (7, 7, 2, 1):
        x = oracle.data(size)
        assert torch.allclose(bound.per_datum(oracle.model, oracle.guide, x), oracle.log_prob(x), atol=1e-6)


def test_one_bound_serves_pairs_whose_plates_nest_differently():
    def model(x):
        with pyro.plate("group", 2, dim=-3), pyro.plate("row", 2, dim=-2), pyro.plate("column", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("group", 2, dim=-3), pyro.plate("row", 2, dim=-2), pyro.plate("column", 3, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    oracle, bound, cube = LinearGaussian(), IWAE(3), torch.randn(2, 2, 3)
    bound.per_datum(oracle.model, oracle.guide, oracle.data(4))
    values = bound.per_datum(model, guide, cube)
    assert torch.allclose(values, dist.Normal(0.0, 2**0.5).log_prob(cube), atol=1e-5)


def test_beta_is_changed_in_place():
    oracle, bound = LinearGaussian(widen=2.0), ELBO()
    x = oracle.data(4)
    bound.beta.fill_(0.0)
    torch.manual_seed(0)
    without_kl = bound.per_datum(oracle.model, oracle.guide, x)
    torch.manual_seed(0)
    weights = bound.log_weights(oracle.model, oracle.guide, x)
    assert torch.allclose(without_kl, weights.model_terms["x"][0])


@pytest.mark.parametrize("scale", [None, 0.5, torch.tensor(0.5).double()], ids=["plain", "number", "tensor"])
@pytest.mark.parametrize("bound", [ELBO(max_plate_nesting=1), IWAE(3, max_plate_nesting=1)], ids=["elbo", "iwae"])
def test_nothing_is_read_off_the_device(bound, scale, monkeypatch):
    """No .item(), float() or bool() of a tensor on the way to the loss."""
    oracle, x = LinearGaussian(), LinearGaussian().data(4)
    model, guide = oracle.model, oracle.guide
    if scale is not None:
        model, guide = pyro.poutine.scale(model, scale=scale), pyro.poutine.scale(guide, scale=scale)
    with pyro.validation_enabled(is_validate=False):
        bound.loss_and_grads(model, guide, x)

        def refuse(*args):
            raise RuntimeError("a tensor was read")

        for name in ("item", "__bool__", "__float__", "__int__", "tolist", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, refuse)
        monkeypatch.setattr(torch, "equal", refuse)
        loss = bound.loss_and_grads(model, guide, x)
    assert loss.shape == ()


def test_tensor_scales_that_differ_are_refused_when_the_device_gets_there():
    oracle, x = LinearGaussian(), LinearGaussian().data(4)
    pair = [pyro.poutine.scale(oracle.model, scale=torch.tensor(0.5)), pyro.poutine.scale(oracle.guide, scale=2.0)]
    with pytest.raises(RuntimeError, match="do not share one scale"):
        IWAE(2).loss(*pair, x)
    assert ELBO().loss(*pair, x).isfinite()


def test_weights_without_any_term_are_refused_clearly():
    with pytest.raises(ValueError, match="No plate encloses"):
        require_data_plate(LogWeights({}, {}))


@pytest.mark.parametrize("name", BOUNDS)
def test_no_particles_are_refused(name):
    with pytest.raises(ValueError, match="num_particles=0"):
        BOUNDS[name](0)


def test_a_guide_site_the_model_lacks_is_said():
    oracle = LinearGaussian()

    def guide(x):
        oracle.guide(x)
        pyro.sample("extra", dist.Normal(0.0, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="non-auxiliary vars in guide"):
            ELBO().loss(oracle.model, guide, oracle.data(3))
