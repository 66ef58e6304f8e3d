# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The Bayesian mixture in Bartlett's coordinates has the densities of Wishart, normal and mixture."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_dgm.models import MarginalMixture

D, K, N = 3, 4, 20


@pytest.fixture
def prior(device):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(D, 2 * D, generator=generator, dtype=torch.float64)
    mean = torch.randn(D, generator=generator, dtype=torch.float64)
    made = MarginalMixture(
        components=K, mean=mean, scale=root @ root.mT, dof=D + 1.5, concentration=0.7, mean_precision=0.3
    )
    return made.to(device)


def drawn(prior, x=None):
    torch.manual_seed(1)
    trace = poutine.trace(prior.model).get_trace(x, size=N)
    trace.compute_log_prob()
    return trace


def test_precisions_are_wishart_and_means_normal_around_m(prior):
    """By the change of variables from (squares, below) to the precision P P^T, P = U A."""
    trace = drawn(prior)
    squares, below, means = (trace.nodes[name]["value"] for name in ("squares", "below", "means"))

    def precision(flat):
        root = prior.precision_root(flat[:D], flat[D:])
        return (root @ root.mT)[torch.tril_indices(D, D, device=flat.device).unbind()]

    wishart = torch.distributions.Wishart(D + 1.5, covariance_matrix=prior.factor @ prior.factor.mT)
    for k in range(K):
        flat = torch.cat([squares[k], below[k]])
        volume = torch.autograd.functional.jacobian(precision, flat).slogdet()[1]
        root = prior.precision_root(squares[k], below[k])
        found = trace.nodes["squares"]["log_prob"][k] + trace.nodes["below"]["log_prob"][k]
        assert found.item() == pytest.approx((wishart.log_prob(root @ root.mT) + volume).item())
        around = dist.MultivariateNormal(prior.mean, precision_matrix=0.3 * root @ root.mT)
        assert trace.nodes["means"]["log_prob"][k].item() == pytest.approx(around.log_prob(means[k]).item())


def test_data_are_of_the_mixture(prior):
    trace = drawn(prior)
    values = {name: trace.nodes[name]["value"] for name in ("weights", "squares", "below", "means")}
    x = trace.nodes["x"]["value"]
    parts = dist.MultivariateNormal(values["means"], prior.covariances(values))
    exact = dist.MixtureSameFamily(dist.Categorical(values["weights"]), parts).log_prob(x)
    assert x.shape == (N, D)
    assert trace.nodes["x"]["log_prob"].allclose(exact)
    assert prior.log_prob(x, values).allclose(exact)
    several = {name: torch.stack([value, value.flip(0)]) for name, value in values.items()}
    assert prior.log_prob(x, several).allclose(torch.stack([exact, exact])), "components in another order"


def test_dreams_have_the_covariance(device):
    prior = MarginalMixture(components=1, mean=torch.zeros(2), scale=torch.eye(2)).to(device)
    covariance = torch.tensor([[[2.0, 0.9], [0.9, 1.0]]], device=device)
    values = prior.coordinates(torch.ones(1, device=device), torch.zeros(1, 2, device=device), covariance)
    torch.manual_seed(0)
    x = poutine.condition(prior.model, data=values)(size=20000)
    error = (2 * covariance[0].diagonal().outer(covariance[0].diagonal()) / 20000).sqrt()
    assert ((x.mT.cov() - covariance[0]).abs() < 5 * error).all()


def test_coordinates_lead_back_to_the_mixture(prior, device):
    root = torch.randn(K, D, 2 * D, dtype=torch.float64, device=device)
    covariances, means = root @ root.mT, torch.randn(K, D, dtype=torch.float64, device=device)
    weights = torch.full((K,), 1 / K, dtype=torch.float64, device=device)
    values = prior.coordinates(weights, means, covariances)
    assert prior.covariances(values).allclose(covariances)
    assert values["weights"].equal(weights)


def test_draws_get_the_labels_of_given_means(prior):
    trace = drawn(prior)
    values = {name: trace.nodes[name]["value"] for name in ("weights", "squares", "below", "means")}
    order = torch.tensor([2, 0, 3, 1])
    draws = {name: torch.stack([value, value[order]]) for name, value in values.items()}
    for name, found in prior.relabelled(draws, values["means"]).items():
        assert found[0].equal(found[1])
        assert found[0].equal(values[name])


def test_runs_in_any_precision():
    prior = MarginalMixture(components=2, mean=torch.zeros(2), scale=torch.eye(2))
    for dtype in (torch.float32, torch.float64):
        assert prior.to(dtype).model(torch.randn(5, 2, dtype=dtype)).dtype == dtype
    assert not list(pyro.get_param_store())


def test_refusals():
    with pytest.raises(ValueError, match="a mean of shape"):
        MarginalMixture(components=2, mean=torch.zeros(2), scale=torch.eye(3))
    with pytest.raises(ValueError, match="dof must be above 1"):
        MarginalMixture(components=2, mean=torch.zeros(2), scale=torch.eye(2), dof=1)
    with pytest.raises(ValueError, match="not positive definite"):
        MarginalMixture(components=2, mean=torch.zeros(2), scale=-torch.eye(2))
    with pytest.raises(ValueError, match="above 0"):
        MarginalMixture(components=2, mean=torch.zeros(2), scale=torch.eye(2), concentration=-math.inf)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, D + 1, dtype=torch.float64), "needs"),
        (torch.zeros(4, D, dtype=torch.long), "dtype"),
        (torch.zeros(4, D), "float64"),
    ],
)
def test_other_data_are_refused(prior, x, message):
    with pytest.raises(ValueError, match=message):
        prior.model(x)
