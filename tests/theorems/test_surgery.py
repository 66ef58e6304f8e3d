# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""ELBO surgery: the average KL term is information plus marginal KL, which is total correlation plus dimensions."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.evaluate import aggregate_posterior, elbo_surgery
from tests.oracles import within

N, G = 3, 4  # data, and the values that each of two discrete latent dimensions takes
EVERY = torch.arange(N)  # a datum is its own index
CODES = torch.cartesian_prod(torch.arange(G), torch.arange(G))


def tables(seed):
    """Any q(z1 | x_n) q(z2 | x_n) and p(z1) p(z2) over G values each, as log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(N + 1, 2, G, generator=generator, dtype=torch.float64)
    return logits[:N].log_softmax(-1), logits[N].log_softmax(-1)


def programs(log_q, log_p):
    """The same as a model and a guide."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=log_p).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1).double(), 1.0), obs=x.double())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=log_q[x]).to_event(1))

    return model, guide


def joint(log_q):
    """Log q(z1, z2) of independent dimensions, shape (..., G, G)."""
    return log_q[..., 0, :, None] + log_q[..., 1, None, :]


def kl(log_q, log_p):
    return (log_q.exp() * (log_q - log_p)).flatten(-2).sum(-1)


def scored(guide):
    """The aggregate posterior of all codes, shape (G, G), and of each dimension, shape (2, G)."""
    single = aggregate_posterior(guide, CODES, EVERY, dimensions=True).reshape(G, G, 2)
    return aggregate_posterior(guide, CODES, EVERY).reshape(G, G), torch.stack([single[:, 0, 0], single[0, :, 1]])


@given(st.integers(0, 10**6))
def test_the_average_kl_is_information_plus_marginal_kl(seed):
    """1/n sum_i KL(q(z|x_i) || p(z)) = KL(q(z) || p(z)) + I_q[i, z], i being uniform.

    The information is log n - E_q(z) H[q(i|z)], so it lies between 0 and log n.
    """
    log_q, log_p = tables(seed)
    each, prior = joint(log_q), joint(log_p)
    aggregate, _ = scored(programs(log_q, log_p)[1])
    torch.testing.assert_close(aggregate, each.logsumexp(0) - math.log(N))
    information = kl(each, aggregate).mean()
    torch.testing.assert_close(kl(each, prior).mean(), information + kl(aggregate, prior))
    index = each - math.log(N) - aggregate  # log q(i | z)
    entropy = -(aggregate.exp() * (index.exp() * index).sum(0)).sum()
    torch.testing.assert_close(information, math.log(N) - entropy)
    assert -1e-12 <= information <= math.log(N) + 1e-12


@given(st.integers(0, 10**6))
def test_the_marginal_kl_is_total_correlation_plus_the_kl_of_each_dimension(seed):
    """KL(q(z) || p(z)) = KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j)) if p(z) = prod_j p(z_j).

    Neither part is negative.
    """
    log_q, log_p = tables(seed)
    aggregate, single = scored(programs(log_q, log_p)[1])
    torch.testing.assert_close(single, torch.stack([aggregate.logsumexp(1), aggregate.logsumexp(0)]))
    correlation = kl(aggregate, joint(single))
    dimensions = (single.exp() * (single - log_p)).sum()
    torch.testing.assert_close(kl(aggregate, joint(log_p)), correlation + dimensions)
    assert correlation >= -1e-12
    assert dimensions >= -1e-12


@pytest.mark.parametrize("seed", range(5))
def test_surgery_finds_every_part(seed):
    """Each term of both theorems, estimated from codes, is what the sums over all codes say, and they add up."""
    log_q, log_p = tables(seed)
    each, aggregate = joint(log_q), joint(log_q).logsumexp(0) - math.log(N)
    single = torch.stack([aggregate.logsumexp(1), aggregate.logsumexp(0)])
    found = elbo_surgery(*programs(log_q, log_p), EVERY.repeat(400))  # the same aggregate, and many codes
    dimensions = (single.exp() * (single - log_p)).sum(-1)
    for part, exact in (
        (found.kl, kl(each, joint(log_p)).mean()),
        (found.mutual_information, kl(each, aggregate).mean()),
        (found.marginal_kl, kl(aggregate, joint(log_p))),
        (found.total_correlation, kl(aggregate, joint(single))),
        *zip(found.dimension_kl, dimensions, strict=True),
    ):
        assert within(part.values, exact)
    torch.testing.assert_close(found.kl.values, found.mutual_information.values + found.marginal_kl.values)
    parts = found.total_correlation.values + found.dimension_kls.values
    torch.testing.assert_close(found.marginal_kl.values, parts)
