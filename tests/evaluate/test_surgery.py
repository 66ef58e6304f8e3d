# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The parts of the average KL term agree with quadrature, and the estimators err on the side that they say."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import aggregate_posterior, elbo_surgery, elbo_terms
from pyro_dgm.evaluate.minibatch_densities import minibatch_stratified, minibatch_weighted
from tests.evaluate.stories import Story, digits
from tests.oracles import LinearGaussian, not_above, within

LOC = torch.tensor([[-2.0, 0.5], [-1.5, 0.0], [0.0, 1.0], [1.0, -1.0], [2.5, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([0.3, 0.6], dtype=torch.float64)


MANY = LOC.repeat(300, 1)  # the same aggregate posterior, and many codes


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, SCALE.to(x)).to_event(1))


def full_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x, torch.diag(SCALE.to(x) ** 2)))


def quadrature():
    """KL, information, marginal KL, total correlation and KL by dimension, by a fine grid over two dimensions."""
    points, step = torch.linspace(-8.0, 8.0, 1601, dtype=torch.float64), 0.01
    each = dist.Normal(LOC, SCALE).log_prob(points[:, None, None]).exp()  # (G, N, 2)
    q1, q2 = each.mean(1).T
    joint = torch.einsum("gn,hn->gh", each[..., 0], each[..., 1]) / len(LOC)
    prior = dist.Normal(0.0, 1.0).log_prob(points)
    kl = torch.distributions.kl_divergence(dist.Normal(LOC, SCALE), dist.Normal(0.0, 1.0)).sum(-1).mean()
    marginal = torch.where(joint > 0, joint * (joint.log() - prior[:, None] - prior), 0.0).sum() * step**2
    total = torch.where(joint > 0, joint * (joint.log() - q1.log()[:, None] - q2.log()), 0.0).sum() * step**2
    return kl, kl - marginal, marginal, total, [(q * (q.log() - prior)).sum() * step for q in (q1, q2)]


def test_every_part_agrees_with_quadrature():
    kl, information, marginal, total, single = quadrature()
    found = elbo_surgery(model, guide, MANY)
    for part, exact in (
        (found.kl, kl),
        (found.mutual_information, information),
        (found.marginal_kl, marginal),
        (found.total_correlation, total),
        *zip(found.dimension_kl, single, strict=True),
    ):
        assert within(part.values, exact)
    assert 0 < information < math.log(5)


def test_the_parts_of_every_datum_sum_to_the_whole(device):
    story = Story().to(device)
    x = digits(30)[0].to(device)
    found = elbo_surgery(story.model, story.guide, x, num_samples=3, batch_size=7, max_elements=100)
    torch.testing.assert_close(found.kl.values, found.mutual_information.values + found.marginal_kl.values)
    parts = found.total_correlation.values + found.dimension_kls.values
    torch.testing.assert_close(found.marginal_kl.values, parts, rtol=1e-4, atol=1e-4)
    elbo = elbo_terms(story.model, story.guide, x, num_samples=2000, max_elements=10**6).kl["z"]
    error = math.hypot(found.kl.values.std() / 30**0.5, 1e-3)
    assert abs(found.kl.mean - elbo.mean) < 5 * error


def test_chunks_do_not_change_the_density():
    z = torch.randn(11, 2, dtype=torch.float64)
    exact = dist.Normal(LOC, SCALE).log_prob(z[:, None])  # (M, N, 2)
    for limits in ({}, {"batch_size": 2, "max_elements": 8}):
        torch.testing.assert_close(
            aggregate_posterior(guide, z, LOC, **limits), exact.sum(-1).logsumexp(1) - math.log(5)
        )
        by_dimension = aggregate_posterior(guide, z, LOC, dimensions=True, **limits)
        torch.testing.assert_close(by_dimension, exact.logsumexp(1) - math.log(5))


def test_a_posterior_without_dimensions_has_information_and_marginal_kl():
    found = elbo_surgery(model, full_guide, MANY)
    assert found.total_correlation is None
    assert found.dimension_kl == ()
    assert within(found.mutual_information.values, quadrature()[1])
    with pytest.raises(ValueError, match="dimensions=False"):
        aggregate_posterior(full_guide, LOC, LOC, dimensions=True)


def test_a_prior_without_dimensions_leaves_the_total_correlation():
    def correlated(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(x.new_zeros(2), torch.eye(2).to(x)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    found = elbo_surgery(correlated, guide, LOC)
    assert found.total_correlation is not None
    assert found.dimension_kl == ()


def test_a_hierarchy_is_scored_jointly():
    """z1 given z2 in the guide: q(z1, z2 | x) is the same Gaussian as that of one site."""

    def deep_model(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat([z1, z2], -1), 1.0).to_event(1), obs=x)

    def deep_guide(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x[:, 1:], 0.6).to_event(1))
            pyro.sample("z1", dist.Normal(x[:, :1] + 0.5 * (z2 - x[:, 1:]), 0.3).to_event(1))

    def flat_guide(x):
        covariance = torch.tensor([[0.09 + 0.25 * 0.36, 0.18], [0.18, 0.36]]).to(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x, covariance))

    z = torch.randn(7, 2, dtype=torch.float64)
    deep = aggregate_posterior(deep_guide, {"z1": z[:, :1], "z2": z[:, 1:]}, LOC, max_elements=6)
    torch.testing.assert_close(deep, aggregate_posterior(flat_guide, z, LOC))
    found = elbo_surgery(deep_model, deep_guide, MANY, batch_size=500)
    flat = elbo_surgery(model, flat_guide, MANY, seed=1)
    error = math.hypot(found.mutual_information.standard_error, flat.mutual_information.standard_error)
    assert abs(found.mutual_information.mean - flat.mutual_information.mean) < 5 * error
    torch.testing.assert_close(found.kl.values, found.mutual_information.values + found.marginal_kl.values)


def under(mask, program):
    def masked(x):
        with pyro.poutine.mask(mask=mask(x)):
            program(x)

    return masked


@pytest.mark.parametrize("options", [{}, {"aggregate": "mss", "minibatch": 10**4}])
def test_data_without_a_code_cost_nothing_and_leave_the_others_alone(options):
    def here(x):
        return x[:, 0] < 2

    pair = under(here, model), under(here, guide)
    found, terms = elbo_surgery(*pair, MANY, **options), elbo_terms(*pair, MANY, num_samples=1000).kl["z"].values
    seen = here(MANY)
    exact = torch.distributions.kl_divergence(dist.Normal(MANY, SCALE), dist.Normal(0.0, 1.0)).sum(-1) * seen
    assert (found.kl.values[~seen] == 0).all()
    assert within(found.kl.values - exact, 0.0)
    assert within(terms - exact, 0.0)
    assert (found.dimension_kls.values[~seen] == 0).all()
    alone = elbo_surgery(model, guide, MANY[seen], **options)
    error = math.hypot(alone.mutual_information.standard_error, found.mutual_information.standard_error)
    assert abs(found.mutual_information.values[seen].mean() - alone.mutual_information.mean) < 5 * error
    torch.testing.assert_close(found.kl.values, found.mutual_information.values + found.marginal_kl.values)


def test_a_mask_inside_a_code_is_refused():
    def deep(x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=x[:, 0] < 2):
                z1 = pyro.sample("z1", dist.Normal(x[:, :1], 1.0).to_event(1))
            pyro.sample("z2", dist.Normal(z1, 1.0).to_event(1))

    with pytest.raises(ValueError, match="takes out a part"):
        elbo_surgery(deep, deep, LOC)
    with pytest.raises(ValueError, match="those of all data"):
        elbo_surgery(under(lambda x: False, model), under(lambda x: False, guide), LOC)


def scores(seed):
    """Codes of the five data, scored by all five: (N, N, 2)."""
    z = LOC + SCALE * torch.randn(5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return dist.Normal(LOC, SCALE).log_prob(z[:, None])


def test_the_stratified_estimator_is_exact_on_all_data_and_the_weighted_one_low_by_log_n():
    for log_q in (scores(0), scores(0).sum(-1)):
        exact = log_q.logsumexp(1) - math.log(5)
        torch.testing.assert_close(minibatch_stratified(log_q, total=5), exact)
        torch.testing.assert_close(minibatch_weighted(log_q, total=5), exact - math.log(5))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_stratified_density_is_unbiased_and_both_logs_are_low(size):
    """Over all minibatches that hold datum 0: an exact mean, no sampling."""
    log_q = scores(1).sum(-1)
    others = torch.combinations(torch.arange(1, 5), size - 1)
    batches = torch.cat([torch.zeros(len(others), 1, dtype=torch.int64), others], 1)
    mss = torch.stack([minibatch_stratified(log_q[index][:, index], total=5)[0] for index in batches])
    mws = torch.stack([minibatch_weighted(log_q[index][:, index], total=5)[0] for index in batches])
    exact = log_q[0].logsumexp(0) - math.log(5)
    torch.testing.assert_close(mss.exp().mean(), exact.exp())
    assert mws.mean() < mss.mean() <= exact
    assert (mws.exp() < exact.exp()).all()


def test_the_stratified_density_is_the_mean_of_the_papers():
    """Chen et al.: 1/N for the own datum, 1/M for M - 1 others, (N - M) / (N M) for the one that is last, M = B - 1."""
    log_q, total, others = scores(2).sum(-1)[:4, :4], 9, 3
    papers = []
    for last in (1, 2, 3):
        weights = torch.full((4,), 1 / others, dtype=torch.float64)
        weights[0], weights[last] = 1 / total, (total - others) / (total * others)
        assert float(weights.sum()) == pytest.approx(1)
        papers.append((weights * log_q[0].exp()).sum())
    torch.testing.assert_close(minibatch_stratified(log_q, total)[0].exp(), torch.stack(papers).mean())


def test_estimators_of_minibatches_bound_the_exact_information():
    oracle = LinearGaussian()
    x = oracle.data(60)
    found = {
        name: torch.tensor(
            [
                elbo_surgery(model, guide, x[:, :2], aggregate=name, minibatch=10, seed=seed).mutual_information.mean
                for seed in range(40)
            ]
        )
        for name in ("exact", "mss", "mws")
    }
    assert not_above(found["exact"] - found["mss"], 0.0)
    assert not_above(found["mss"] - found["mws"], 0.0)
    assert found["exact"].mean() < found["mss"].mean() < found["mws"].mean()
    whole = elbo_surgery(model, guide, x[:, :2], aggregate="mss", minibatch=60)
    exact = elbo_surgery(model, guide, x[:, :2])
    torch.testing.assert_close(whole.mutual_information.values, exact.mutual_information.values)
    torch.testing.assert_close(whole.dimension_kls.values, exact.dimension_kls.values)


def test_prints_every_part_and_the_ceiling():
    found = elbo_surgery(model, guide, LOC)
    names = [line.split(" = ")[0] for line in str(found).splitlines()]
    assert names[:5] == ["average-KL", "information", "marginal-KL", "total-correlation", "dimension-wise-KL"]
    assert names[5] == "information <= log 5"
    report = json.loads(json.dumps(found.as_dict()))
    assert report["dimension_kl"] == [pytest.approx(part.mean, abs=1e-5) for part in found.dimension_kl]
    low = elbo_surgery(model, guide, LOC, aggregate="mss", minibatch=2)
    assert str(low.mutual_information).startswith("information <= ")
    assert "MSS, minibatches of 2, 1 sample, 5 data" in str(low)


def test_far_posteriors_reach_the_ceiling():
    found = elbo_surgery(model, guide, 100 * LOC)
    assert found.mutual_information.mean == pytest.approx(math.log(5))
    assert found.saturated
    assert "take more data" in str(found)


def test_refusals():
    with pytest.raises((ValueError, TypeError), match="'MSS'"):  # a type error where types are checked
        elbo_surgery(model, guide, LOC, aggregate="MSS")
    with pytest.raises(ValueError, match="num_samples=0"):
        elbo_surgery(model, guide, LOC, num_samples=0)
    with pytest.raises(ValueError, match="x is empty"):
        elbo_surgery(model, guide, LOC[:0])
    with pytest.raises(ValueError, match="total=4"):
        minibatch_stratified(scores(0), total=4)
    with pytest.raises(ValueError, match="larger minibatch"):
        minibatch_stratified(torch.zeros(1, 1), total=2)
    with pytest.raises(ValueError, match="1 codes and 0 data"):
        aggregate_posterior(guide, LOC[:1], LOC[:0])
    with pytest.raises(ValueError, match=r"sites \['y'\]"):
        aggregate_posterior(guide, {"y": LOC}, LOC)

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))
            pyro.sample("u", dist.Normal(x[:, 0], 1.0), infer={"is_auxiliary": True})

    with pytest.raises(ValueError, match=r"auxiliary variables \['u'\]"):
        elbo_surgery(model, auxiliary, LOC)
    with pytest.raises(ValueError, match="one tensor"):
        aggregate_posterior(auxiliary, LOC, LOC)
