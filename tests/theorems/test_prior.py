# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The optimal prior is the aggregate posterior."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_dgm.evaluate import aggregate_posterior, elbo_surgery, elbo_terms
from tests.oracles import within

LOC = torch.tensor([[-2.0, 0.5], [-1.5, 0.0], [0.0, 1.0], [1.0, -1.0], [2.5, 2.0]], dtype=torch.float64)
MANY = LOC.repeat(200, 1)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 0.5).to_event(1))


def mixture(weights):
    components = dist.Normal(LOC, 0.5).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(logits=weights), components)


def with_prior(prior):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


def test_the_marginal_kl_is_zero_for_the_aggregate_posterior_and_for_no_other_prior():
    """KL(q_agg(z) || p(z)) = 0 if and only if p(z) = q_agg(z) = 1/n sum_i q(z | x_i).

    The KL term that is left is the information alone.
    """
    best = elbo_surgery(with_prior(mixture(torch.zeros(5, dtype=torch.float64))), guide, MANY)
    torch.testing.assert_close(best.marginal_kl.values, torch.zeros(len(MANY), dtype=torch.float64))
    torch.testing.assert_close(best.kl.values, best.mutual_information.values)
    usual = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)
    for prior in (usual, mixture(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64))):
        other = elbo_surgery(with_prior(prior), guide, MANY)
        assert other.marginal_kl.mean > 5 * other.marginal_kl.standard_error
        assert other.mutual_information.values.equal(best.mutual_information.values)


def test_no_prior_gives_a_higher_elbo():
    """The prior enters the average ELBO by -KL(q_agg || p) only.

    So the ELBO under the aggregate posterior exceeds that under any other prior by that prior's marginal KL.
    """
    aggregate = mixture(torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(aggregate.log_prob(LOC), aggregate_posterior(guide, LOC, MANY))
    best = elbo_terms(with_prior(aggregate), guide, MANY, seed=1).negative_elbo
    usual = with_prior(dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
    other = elbo_terms(usual, guide, MANY, seed=1).negative_elbo
    marginal = elbo_surgery(usual, guide, MANY, seed=1).marginal_kl
    assert within(other.values - best.values - marginal.values, 0.0)
    assert other.mean > best.mean


def test_a_learned_mixture_finds_the_aggregate_posterior():
    """Maximising the ELBO over the weights of a mixture that holds the aggregate posterior ends at equal weights."""
    weights = nn.Parameter(torch.tensor([2.0, -1.0, 0.0, 1.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        z = MANY + 0.5 * torch.randn(MANY.shape, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (-mixture(weights).log_prob(z).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(
        weights.detach().softmax(0), torch.full((5,), 0.2, dtype=torch.float64), atol=0.03, rtol=0
    )
