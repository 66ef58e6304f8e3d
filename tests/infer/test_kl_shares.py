# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Capacity, balance and weights of sites: each does what its formula says, and is the plain KL at its safe value."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.distributions import FlowPrior
from pyro_dgm.infer import ELBO, Capacity, KLBalance, SiteWeights, kl_terms, log_weights
from tests.infer.normals import Normals, close, run


@pytest.mark.parametrize("nats", [0.0, 0.3, 30.0])
def test_a_capacity_charges_the_distance(nats):
    pair = Normals()
    x = pair.data(40)
    weights = log_weights(pair.model, pair.guide, x)
    kl = kl_terms(weights, analytic=True)["z"]
    of_batch, of_datum = (
        Capacity(nats, weight=3.0, over=over).cost(weights, analytic=True).mean() for over in ("batch", "datum")
    )
    assert torch.allclose(of_batch, 3 * (kl.mean() - nats).abs())
    assert torch.allclose(of_datum, 3 * (kl - nats).abs().mean())
    assert of_datum >= of_batch - 1e-12


def test_no_capacity_is_a_beta_vae():
    pair = Normals()
    x = pair.data(8)
    expected = run(ELBO(beta=4.0, analytic_kl=True), pair, x)
    assert close(run(ELBO(kl=Capacity(0.0, weight=4.0)), pair, x), expected)


def test_a_capacity_changes_in_place():
    pair, control = Normals(), Capacity(100.0, weight=1.0)
    x, bound = pair.data(8), ELBO(kl=control)
    below = run(bound, pair, x)
    control.nats.fill_(0.0)
    assert close(run(bound, pair, x), run(ELBO(analytic_kl=True), pair, x))
    assert not close(below[1:], run(bound, pair, x)[1:])


@pytest.mark.parametrize("options", [{"nats": -1.0}, {"weight": -1.0}, {"nats": math.inf}])
def test_a_capacity_refuses_what_makes_no_sense(options):
    with pytest.raises(ValueError, match=r"Capacity got .* from 0 on"):
        Capacity(**options)


def cost_and_gradients(pair, x, kl, *, analytic):
    """The cost alone, without reconstruction, and its gradients for the posterior's and the prior's parameters."""
    torch.manual_seed(0)
    weights = log_weights(pair.model, pair.guide, x, particles=2)
    cost = kl_terms(weights, analytic=analytic)["z"] if kl is None else kl.cost(weights, analytic=analytic)
    of_prior = [pair.prior] if pair.flow is None else list(pair.flow.parameters())
    return cost, torch.autograd.grad(cost.sum(), [pair.posterior, *of_prior])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("kind", ["closed", "sampled", "flow"])
def test_a_balance_shares_out_the_gradient(kind, share):
    pair = Normals(prior=FlowPrior(3).double() if kind == "flow" else None)
    x, analytic = pair.data(10), kind == "closed"
    plain, (of_posterior, *of_prior) = cost_and_gradients(pair, x, None, analytic=analytic)
    value, (posterior, *prior) = cost_and_gradients(pair, x, KLBalance(share), analytic=analytic)
    assert torch.allclose(value, plain)
    assert torch.allclose(posterior, (1 - share) * of_posterior)
    assert any(part.abs().sum() > 0 for part in of_prior)
    assert all(torch.allclose(ours, share * theirs) for ours, theirs in zip(prior, of_prior, strict=True))


def test_a_balance_of_categories_needs_their_closed_form():
    logits = torch.tensor([0.1, 0.5, -0.2], requires_grad=True)

    def program(logits):
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Categorical(logits=logits))

    def pair():
        return (lambda: program(torch.zeros(3))), (lambda: program(logits))

    whole = ELBO(analytic_kl=True).differentiable_loss(*pair())
    balanced = ELBO(kl=KLBalance(0.8)).differentiable_loss(*pair())
    assert torch.allclose(whole, balanced)
    with pytest.raises(ValueError, match=r"'z', whose samples carry no gradient"):
        ELBO(kl=KLBalance(0.8), analytic_kl=False).loss(*pair())


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_balance_lies_between_its_sides(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        KLBalance(share)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 4.0])
def test_the_weight_of_the_only_site_is_beta(weight):
    pair = Normals()
    x = pair.data(8)
    assert close(run(ELBO(kl=SiteWeights({"z": weight})), pair, x), run(ELBO(beta=weight), pair, x))
    assert close(run(ELBO(beta=weight, kl=SiteWeights({})), pair, x), run(ELBO(beta=weight), pair, x))


def test_weights_of_no_site_are_refused():
    pair = Normals()
    with pytest.raises(ValueError, match=r"names \['y'\], but the latent sites are \['z'\]"):
        ELBO(kl=SiteWeights({"y": 2.0})).loss(pair.model, pair.guide, pair.data(4))
    with pytest.raises(ValueError, match="SiteWeights got -1"):
        SiteWeights({"z": -1})
