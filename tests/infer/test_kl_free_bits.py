# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Free bits: none is the ELBO to the bit, and below lambda a group has no gradient at all."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.infer import (
    ELBO,
    FreeBits,
    LogWeights,
    kl_terms,
    log_weights,
)
from pyro_dgm.infer.kl_terms import data_mean
from tests.infer.normals import Normals, run, same
from tests.oracles import BernoulliLatent, within


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("per", ["site", "dimension", "channel", "all"])
@pytest.mark.parametrize("over", ["batch", "datum"])
def test_no_free_bits_is_the_elbo_to_the_bit(over, per, particles):
    pair = Normals()
    x = pair.data(8)
    assert same(run(ELBO(particles, kl=FreeBits(0, per=per, over=over)), pair, x), run(ELBO(particles), pair, x))


terms = st.lists(st.floats(-20, 20), min_size=6, max_size=6)


@given(log_p=terms, log_q=terms, log_x=terms, nats=st.floats(0, 10), over=st.sampled_from(["batch", "datum"]))
def test_free_bits_never_exceed_the_elbo(log_p, log_q, log_x, nats, over):
    z, q, x = (torch.tensor(part, dtype=torch.float64).reshape(2, 3) for part in (log_p, log_q, log_x))
    weights = LogWeights({"z": z, "x": x}, {"z": q}, frozenset({"z"}))
    free, plain = (ELBO(2, kl=kl)._weigh(weights).mean() for kl in (FreeBits(nats, over=over), None))
    kl = (q - z).mean() if over == "batch" else (q - z).mean(0)
    assert free <= plain + 1e-9
    if nats > 0:
        assert torch.allclose(plain - free, (torch.clamp(kl, min=nats) - kl).mean(), atol=1e-9)


@pytest.mark.parametrize("analytic", [False, True])
def test_a_group_below_its_nats_has_no_gradient_and_one_above_has_all(analytic):
    pair = Normals()
    x = pair.data(400)
    bound = ELBO(kl=FreeBits(0.4, per="dimension"), analytic_kl=analytic)
    kl = log_weights(pair.model, pair.guide, x)
    assert (data_mean(kl.sites["z"].by_dimension(analytic=True), kl) > 0.4).tolist() == [False, True, False]

    def model(x):  # with no data, the KL is all there is
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pair.prior, 1.0).to_event(1))

    gradients = {}
    for name, kl in (("free", bound), ("plain", ELBO(analytic_kl=analytic))):
        torch.manual_seed(0)
        gradients[name] = torch.autograd.grad(
            kl.differentiable_loss(model, pair.guide, x), [pair.prior, pair.posterior]
        )
    for free, plain in zip(gradients["free"], gradients["plain"], strict=True):
        assert free[0] == free[2] == 0.0
        assert torch.allclose(free[1], plain[1])
        assert (plain != 0).all()


def test_a_channel_is_the_first_dimension_of_the_event():
    loc = torch.tensor([[0.1, 0.2], [1.0, 2.0]])

    def program(loc):
        with pyro.plate("data", 5):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(2))

    def cost(per):
        weights = log_weights(lambda: program(torch.zeros(2, 2)), lambda: program(loc))
        return FreeBits(0.3, per=per).cost(weights, analytic=True)

    assert torch.allclose(cost("channel"), torch.tensor(0.3 + 2.5))
    assert torch.allclose(cost("dimension"), torch.tensor(0.3 + 0.3 + 0.5 + 2.0))
    assert torch.allclose(cost("site"), torch.tensor(0.025 + 2.5))


def test_each_datum_alone_has_its_own_maximum():
    pair = Normals()
    x = pair.data(50)
    weights = log_weights(pair.model, pair.guide, x)
    kl = kl_terms(weights, analytic=True)["z"]
    assert (kl < 0.5).any()
    assert (kl > 0.5).any()
    assert torch.equal(FreeBits(0.5, over="datum").cost(weights, analytic=True), kl.clamp(min=0.5))


def test_data_with_scales_of_their_own_count_by_them():
    scale = torch.tensor([1.0, 3.0], dtype=torch.float64)
    term = torch.tensor([[2.0, 6.0]], dtype=torch.float64)
    weights = LogWeights({"z": -term}, {"z": 0 * term}, frozenset({"z"}), scale=scale)
    assert data_mean(term, weights) == 5.0
    assert data_mean(torch.stack([term, 2 * term], -1), weights).tolist() == [5.0, 10.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"nats": -1}, "nats=-1"), ({"nats": math.nan}, "nats=nan")],
)
def test_free_bits_refuse_what_makes_no_sense(options, said):
    with pytest.raises(ValueError, match=said) as error:
        FreeBits(**options)
    assert "FreeBits" in str(error.value)


@pytest.mark.parametrize("analytic", [False, True])
@pytest.mark.parametrize("particles", [1, 3])
def test_free_bits_of_a_discrete_variable_leave_the_reconstruction_to_teach_it(particles, analytic):
    """Below lambda the gradient is that of E_q log p(x | z), score function included; above it that of the ELBO."""
    bits, x = BernoulliLatent(), torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)
    log_w, log_q = bits.table(x)
    log_prior = dist.Bernoulli(logits=bits.prior_logit).log_prob(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    fit = log_w + log_q - log_prior
    for nats, exact in ((50.0, (log_q.exp() * fit).sum()), (1e-6, (log_q.exp() * log_w).sum())):
        wanted = torch.autograd.grad(exact, list(bits.parameters()), retain_graph=True, allow_unused=True)
        bound, gradients = ELBO(particles, kl=FreeBits(nats), analytic_kl=analytic), []
        for _ in range(30):
            loss = -bound.differentiable_loss(bits.model, bits.guide, x.repeat(300)) / 300
            found = torch.autograd.grad(loss, list(bits.parameters()))
            gradients.append(torch.stack(found))
        expected = torch.stack([torch.zeros_like(loss) if part is None else part for part in wanted])
        assert within(torch.stack(gradients), expected.detach())
