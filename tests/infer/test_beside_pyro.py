# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Discrete latent variables in stock Pyro and here: enumerated, with score functions and baselines, relaxed."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO, TraceGraph_ELBO
from torch import nn

from pyro_dgm.distributions import Bernoulli
from pyro_dgm.infer import ELBO, IWAE, Objective, ReweightedWakeSleep
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from tests.oracles import BernoulliLatent, within

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)


class Known(BernoulliLatent):
    """The oracle with its parameters announced to Pyro, as its own objectives want it."""

    def guide(self, x):
        pyro.module("bit", self)
        super().guide(x)


def gradients_of(loss_and_grads, oracle, x, rounds, divide, guide=None):
    parameters, found = list(oracle.parameters()), []
    for _ in range(rounds):
        for parameter in parameters:
            parameter.grad = None
        loss_and_grads(oracle.model, guide or oracle.guide, x)
        found.append(torch.stack([parameter.grad for parameter in parameters]) / divide)
    return torch.stack(found)


@pytest.mark.parametrize("baseline", [{}, {"use_decaying_avg_baseline": True}], ids=["alone", "with a baseline"])
def test_three_ways_to_one_gradient(baseline):
    """Summing the bit out, TraceGraph_ELBO with or without a baseline, and the score functions here agree."""
    oracle = Known()
    log_w, log_q = oracle.table(X)
    exact = torch.stack(torch.autograd.grad(-(log_q.exp() * log_w).sum(), list(oracle.parameters())))
    enumerated = poutine.infer_config(oracle.guide, lambda _: {"enumerate": "parallel"})
    summed = TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads
    assert torch.allclose(gradients_of(summed, oracle, X, 1, 1.0, enumerated)[0], exact)
    x, copies = X.repeat(400), 400
    stock = TraceGraph_ELBO().loss_and_grads
    with_baseline = poutine.infer_config(oracle.guide, lambda _: {"baseline": baseline})
    assert within(gradients_of(stock, oracle, x, 60, copies, with_baseline), exact)
    for gradient in ("total", "vimco"):
        assert within(gradients_of(ELBO(2, gradient=gradient).loss_and_grads, oracle, x, 40, copies), exact)


class BitVAE(nn.Module):
    """Bits, decoded: the posterior is any distribution over vectors of bits, made of logits."""

    def __init__(self, posterior, prior=None):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 4), nn.Linear(4, 16)
        self.posterior, self.prior = posterior, prior or posterior

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(torch.zeros(len(x), 4)))
            pyro.sample("x", Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(self.encoder(x)))


def stripes():
    """Pictures of 4 x 4 whose rows are on or off: four bits are what they are made of."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (64, 4, 1), generator=generator).expand(64, 4, 4).reshape(64, 16).float()


def bits(logits):
    return dist.Bernoulli(logits=logits).to_event(1)


def trained(vae, bound, steps=250):
    x, optimizer = stripes(), torch.optim.Adam(vae.parameters(), lr=0.05)
    first = None
    for _ in range(steps):
        optimizer.zero_grad()
        loss = bound.differentiable_loss(vae.model, vae.guide, x) / len(x)
        first = first or float(loss.detach())
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return first, float(IWAE(50).loss(vae.model, vae.guide, x)) / len(x)


def test_stock_baselines_train_a_vae_of_bits():
    vae, x = BitVAE(bits), stripes()
    vae.guide = poutine.infer_config(vae.guide, lambda _: {"baseline": {"use_decaying_avg_baseline": True}})
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), TraceGraph_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(250)]
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        assert float(IWAE(50).loss(vae.model, vae.guide, x)) / len(x) < losses[0] / 2


def test_a_vae_of_this_package_takes_stock_tracegraph():
    vae = VAE(shape=(8, 8), levels=2, latent=3, encoder=MLP, decoder=MLP)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), TraceGraph_ELBO())
    x = torch.randint(0, 2, (10, 8, 8))
    losses = [svi.step(x) for _ in range(50)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "bound", [ELBO(4), ELBO(4, gradient="vimco"), IWAE(5, gradient="vimco"), ReweightedWakeSleep(8)], ids=range(4)
)
def test_a_vae_of_bits_learns_its_four_bits(bound):
    """The data have 4 bits, 2.77 nats; a model without latent variables needs 11.1."""
    first, nll = trained(BitVAE(bits), bound)
    assert nll < 5.0 < first


RELAXED = {
    "RelaxedBernoulli": dist.RelaxedBernoulli,
    "RelaxedBernoulliStraightThrough": dist.RelaxedBernoulliStraightThrough,
}


@pytest.mark.parametrize("name", RELAXED)
@pytest.mark.parametrize("make", [partial(ELBO, 1), partial(ELBO, 4), partial(IWAE, 5)])
def test_relaxed_bits_are_reparameterised(make, name):
    """With one relaxed distribution as prior and posterior the bound is that of the relaxed model."""
    vae = BitVAE(lambda logits: RELAXED[name](torch.tensor(0.5), logits=logits).to_event(1))
    weights = make().log_weights(vae.model, vae.guide, stripes())
    assert weights.score is None
    assert weights.log_w.isfinite().all()
    first, nll = trained(vae, make())
    assert nll < 0.7 * first


@pytest.mark.parametrize("kind", [dist.RelaxedOneHotCategorical, dist.RelaxedOneHotCategoricalStraightThrough])
def test_relaxed_categories_are_reparameterised(kind):
    vae = BitVAE(lambda logits: kind(torch.tensor(0.5), logits=logits))
    terms = Objective(vae.model, vae.guide, IWAE(5))(stripes())
    terms["loss"].backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in vae.parameters())


def test_categories_straight_through_keep_their_bound():
    """Hard samples, scored as such: the value is a bound of the discrete model, and the gradient has a bias."""
    vae = BitVAE(lambda logits: dist.OneHotCategoricalStraightThrough(logits=logits))
    hard = BitVAE(lambda logits: dist.OneHotCategorical(logits=logits))
    hard.load_state_dict(vae.state_dict())
    found = []
    for program in (vae, hard):
        torch.manual_seed(0)
        found.append(IWAE(5).loss(program.model, program.guide, stripes()))
    assert torch.allclose(*found)
    assert IWAE(5).log_weights(vae.model, vae.guide, stripes()).score is None


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_a_relaxed_bit_has_a_path(gradient):
    vae = BitVAE(lambda logits: dist.RelaxedBernoulli(torch.tensor(0.5), logits=logits).to_event(1))
    first, nll = trained(vae, IWAE(5, gradient=gradient), steps=100)
    assert nll < 0.8 * first
    rounded = BitVAE(lambda logits: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=logits).to_event(1))
    with pytest.raises(ValueError, match="rounded"):
        IWAE(5, gradient=gradient).differentiable_loss(rounded.model, rounded.guide, stripes())
