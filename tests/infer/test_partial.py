# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds on the observed part of each datum, against the exact marginal of a linear Gaussian model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import log_likelihood
from pyro_dgm.infer import ELBO, IWAE, Objective, log_weights, observed
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from tests.oracles import LinearGaussian, not_above

MASK = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]]).bool()


class Partial(LinearGaussian):
    """The oracle with the posterior and marginal of the entries that a mask leaves."""

    def __init__(self, mask, **options):
        super().__init__(**options)
        self.mask = mask

    def posterior_of(self, x, mask):
        weight = self.weight * mask.unsqueeze(-1)  # (N, D, L)
        eye = torch.eye(weight.shape[-1]).to(x)
        precision = weight.mT @ weight / self.noise**2 + eye
        covariance = torch.linalg.inv(precision)
        filled = torch.where(mask, x, 0.0).unsqueeze(-1)
        return (covariance @ weight.mT @ filled / self.noise**2).squeeze(-1), covariance

    def guide(self, x):
        mean, covariance = self.posterior_of(x, self.mask.to(x.device).repeat(len(x) // len(self.mask), 1))
        with self.plate(x) as index:
            pyro.sample("z", dist.MultivariateNormal(mean[index], self.widen * covariance[index]))

    def log_prob(self, x):
        rows = []
        for datum, mask in zip(x, self.mask.to(x.device), strict=True):
            weight = self.weight[mask]
            covariance = weight @ weight.mT + self.noise**2 * torch.eye(len(weight)).to(x)
            empty = not mask.any()
            rows.append(
                x.new_zeros(())
                if empty
                else dist.MultivariateNormal(x.new_zeros(len(weight)), covariance).log_prob(datum[mask])
            )
        return torch.stack(rows)


def with_holes(x, mask):
    return x.masked_fill(~mask.to(x.device), math.nan)


@pytest.mark.parametrize("particles", [1, 3])
def test_the_exact_posterior_gives_log_p_of_what_was_observed(particles, device):
    oracle = Partial(MASK, device=device)
    x = oracle.data(6)
    model = observed(oracle.model, MASK.to(device))
    exact = oracle.log_prob(x)
    holed = with_holes(x, MASK)
    assert torch.allclose(IWAE(particles).per_datum(model, oracle.guide, x), exact, atol=1e-8)
    assert torch.allclose(IWAE(particles).per_datum(model, oracle.guide, holed), exact, atol=1e-8)
    gradient = torch.autograd.grad(IWAE(particles).differentiable_loss(model, oracle.guide, holed), oracle.weight)[0]
    assert gradient.isfinite().all()
    assert exact[3] == 0  # nothing was observed


@pytest.mark.parametrize("particles", [1, 5, 50])
def test_a_bound_is_one_on_what_was_observed(particles):
    oracle = Partial(MASK, widen=1.8)
    x = oracle.data(6)
    model = observed(oracle.model, MASK.repeat(300, 1))
    with torch.no_grad():
        values = IWAE(particles).per_datum(model, oracle.guide, with_holes(x, MASK).repeat(300, 1)).reshape(300, 6)
    assert not_above(values, oracle.log_prob(x).detach())


def test_a_plate_that_subsamples_takes_the_rows_of_the_mask():
    oracle = Partial(MASK, subsample=2)
    x = oracle.data(6)
    model = observed(oracle.model, MASK)
    losses = torch.stack([ELBO(2).loss(model, oracle.guide, with_holes(x, MASK)) for _ in range(200)])
    assert (losses.mean() + oracle.log_prob(x).sum()).abs() < 5 * losses.std() / 200**0.5


def test_an_estimate_in_batches_takes_what_is_nan_as_missing():
    oracle = Partial(MASK)
    x = oracle.data(6)
    holed = with_holes(x, MASK)
    exact = oracle.log_prob(x)

    def guide(batch):
        mean, covariance = oracle.posterior_of(batch, ~batch.isnan())
        with pyro.plate("data", len(batch)):
            pyro.sample("z", dist.MultivariateNormal(mean, covariance))

    estimate = log_likelihood(observed(oracle.model), guide, holed, num_samples=5, batch_size=2)
    assert torch.allclose(-estimate.values, exact, atol=1e-8)


def test_a_full_mask_changes_nothing():
    oracle = LinearGaussian(widen=1.5)
    x = oracle.data(4)
    found = []
    for model in (
        oracle.model,
        observed(oracle.model, torch.ones(4, 4).bool()),
        observed(oracle.model, torch.ones(4).bool()),
    ):
        torch.manual_seed(0)
        found.append(IWAE(3).per_datum(model, oracle.guide, x))
    assert torch.allclose(found[0], found[1], rtol=1e-12)
    assert torch.allclose(found[0], found[2], rtol=1e-12)


def test_a_vae_is_trained_and_judged_on_what_was_observed():
    vae = VAE(shape=(4, 4), levels=2, latent=2, encoder=MLP, decoder=MLP)
    x = torch.randint(0, 2, (6, 4, 4))
    mask = torch.rand(6, 4, 4) < 0.5
    other = torch.where(mask, x, 1 - x)  # differs where nothing was observed
    model = observed(vae.model, mask)
    bound = IWAE(3)
    values = []
    for observations in (x, other):
        torch.manual_seed(0)
        values.append(bound.per_datum(model, lambda _: vae.guide(x), observations))
    assert torch.equal(values[0], values[1])
    terms = Objective(model, vae.guide, bound)(x)
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    owners = {id(parameter) for parameter in Objective(model, lambda _: None, bound).parameters()}
    assert owners == {id(parameter) for parameter in vae.parameters()}


def test_what_cannot_be_masked_is_said():
    def full(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.MultivariateNormal(x.new_zeros(2), torch.eye(2)), obs=x)

    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="not independent.*MultivariateNormal"):
        observed(full, x.bool())(x)

    def two(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(2), 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Normal(x.new_zeros(2), 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="site='y'"):
        observed(two, x.bool())(x)
    trace = pyro.poutine.trace(observed(two, x.bool(), site="y")).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["y"]["log_prob_sum"] == 0
    assert trace.nodes["x"]["log_prob_sum"] < 0
    with pytest.raises(ValueError, match="no observed site 'w'"):
        observed(two, x.bool(), site="w")(x)


def pair(*, plates=False):
    """Two numbers of each datum; with further plates of one and of six beside that of the data."""

    def model(x):
        if plates:
            with pyro.plate("others", 6):
                pass
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            if plates:
                with pyro.plate("one", 1, dim=-2), pyro.plate("two of six", 6, subsample_size=2, dim=-3):
                    pass
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), x.new_ones(4)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))

    return model, guide


def test_a_mask_of_all_data_is_refused_for_a_batch_of_them():
    model, guide = pair()
    x = torch.randn(6, 4)
    for rows in (x[2:], x[:5], x[:2]):
        with pytest.raises(ValueError, match="NaN in the data, and leave mask=None"):
            IWAE(5).per_datum(observed(model, MASK), guide, rows)
    with pytest.raises(ValueError, match="leave mask=None"):
        log_likelihood(observed(model, MASK), guide, x, num_samples=5, batch_size=2)
    assert IWAE(5).per_datum(observed(model, MASK[:1]), guide, x).shape == (6,)  # one row for all


def test_other_plates_do_not_choose_the_rows():
    x, found = torch.randn(6, 4), []
    for plates in (False, True):
        model, guide = pair(plates=plates)
        torch.manual_seed(0)
        weights = log_weights(observed(model, MASK), guide, x)
        torch.manual_seed(0)
        every = log_weights(model, guide, x)
        assert not torch.equal(weights.log_w, every.log_w)
        found.append(weights.log_w)
        assert weights.model_terms["x"][0, 3] == 0  # nothing was observed of that one
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("subsample_size", [2, 6])
def test_a_subsample_in_a_plate_beside_another_takes_its_own_rows(subsample_size):
    x, mask = torch.zeros(6, 3), torch.tensor([1, 0, 1, 0, 0, 1]).bool()

    def model():
        with pyro.plate("rows", 6, subsample_size=subsample_size, dim=-2) as index, pyro.plate("columns", 3, dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(len(index), 3), 1.0), obs=x[index])
        return index

    trace = pyro.poutine.trace(observed(model, mask.unsqueeze(-1))).get_trace()
    trace.compute_log_prob()
    scored = trace.nodes["x"]["unscaled_log_prob"] != 0
    assert torch.equal(scored, mask[trace.nodes["_RETURN"]["value"]].unsqueeze(-1).expand(-1, 3))


POSITIVE = {
    "Beta": lambda a: dist.Beta(a, a),
    "Exponential": dist.Exponential,
    "Gamma": lambda a: dist.Gamma(a, a),
    "LogNormal": lambda a: dist.LogNormal(a, 1.0),
    "Pareto": lambda a: dist.Pareto(0.1 * a, 1.0),
    "Uniform": lambda a: dist.Uniform(a - 2.0, a),
    "Weibull": lambda a: dist.Weibull(a, a / 2),
    "Bernoulli": lambda a: dist.Bernoulli(a / 3),
    "Binomial": lambda a: dist.Binomial(3, a / 3),
    "Poisson": dist.Poisson,
}


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", POSITIVE)
def test_missing_entries_have_no_gradient_whatever_the_support(name, validate):
    """As if the entries were not there: the loss and its gradient are those of the entries that were observed."""
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    whole = torch.tensor([[0.5, 0.6], [0.25, 0.3]], dtype=torch.float64)
    if name in ("Bernoulli", "Binomial", "Poisson"):
        whole = whole.round()
    holed = whole.masked_fill(~MASK[:2, 2:], math.nan)  # what is left is one number, at the end of the first row

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", POSITIVE[name](a.expand(x.shape)).to_event(1), obs=x)

    with pyro.validation_enabled(validate):
        loss = ELBO().differentiable_loss(observed(model), lambda x: None, holed)
        exact = -POSITIVE[name](a).log_prob(whole[0, 1])
    for ours, right in zip(torch.autograd.grad(loss, a), torch.autograd.grad(exact, a), strict=True):
        assert torch.allclose(loss, exact)
        assert torch.allclose(ours, right)
