# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Programs of many kinds whose mean-field updates are known: each is found from the program alone."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from pyro_dgm.infer import MeanField


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


ONE = tensor(1)[0]
COUNTS = tensor(0, 2, 1, 9, 12, 8)


def test_counts_of_two_rates() -> None:
    def model(x: Tensor) -> None:
        share = pyro.sample("share", dist.Beta(2 * ONE, 2.0))
        with pyro.plate("rates", 2):
            rate = pyro.sample("rate", dist.Exponential(0.2 * ONE))
        with pyro.plate("data", len(x)):
            busy = pyro.sample("busy", dist.Bernoulli(share))
            pyro.sample("x", dist.Poisson(rate[busy.long()]), obs=x)

    field = MeanField(model, COUNTS)
    history = field.fit()
    assert history.monotone, history.why
    r = field.posterior("busy").probs
    r = torch.stack([1 - r, r])
    torch.testing.assert_close(field.posterior("rate").concentration, 1 + r @ COUNTS, atol=1e-4, rtol=0)
    torch.testing.assert_close(field.posterior("rate").rate, 0.2 + r.sum(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(field.posterior("share").concentration1, 2 + r[1].sum(), atol=1e-4, rtol=0)
    assert sorted(field.posterior("rate").mean.tolist()) == pytest.approx([1, 9.2], abs=0.7)


def test_a_masked_datum_says_nothing() -> None:
    def model(x: Tensor, seen: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0 * ONE, 1.0))
        precision = pyro.sample("precision", dist.Gamma(2 * ONE, 2.0))
        pyro.deterministic("scale", precision**-0.5)
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            pyro.sample("x", dist.Normal(mean, precision**-0.5), obs=x)

    seen = torch.tensor([True, True, False, True, True, True])
    masked, fewer = MeanField(model, COUNTS, seen), MeanField(model, COUNTS[seen], seen[seen])
    assert masked.fit().objectives[-1] == pytest.approx(fewer.fit().objectives[-1])
    torch.testing.assert_close(masked.posterior("mean").loc, fewer.posterior("mean").loc)


def test_vectors_with_a_correlated_prior_have_the_exact_posterior() -> None:
    prior = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 5, generator=generator, dtype=torch.float64)

    def model() -> None:
        with pyro.plate("groups", 3):
            weight = pyro.sample("weight", dist.MultivariateNormal(tensor(1, -1), prior))
        mean = torch.einsum("gnd,gd->gn", x, weight)
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(2), obs=y)

    field = MeanField(model)
    bound = field.sweep()
    precision = torch.linalg.inv(prior) + 4 * x.mT @ x
    target = torch.linalg.inv(prior) @ tensor(1, -1) + 4 * (x.mT @ y.unsqueeze(-1)).squeeze(-1)
    q = field.posterior("weight")
    torch.testing.assert_close(q.mean, torch.linalg.solve(precision, target))
    torch.testing.assert_close(q.precision_matrix, precision)
    covariance = x @ prior @ x.mT + 0.25 * torch.eye(5).double()
    assert bound == pytest.approx(float(dist.MultivariateNormal(x @ tensor(1, -1), covariance).log_prob(y).sum()))


def test_a_matrix_is_one_vector() -> None:
    def model(x: Tensor) -> None:
        weight = pyro.sample("weight", dist.Normal(torch.zeros(2, 3).double(), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(weight.sum() * ONE, 1.0), obs=x)

    field = MeanField(model, 3 * ONE)
    evidence = dist.Normal(0.0, math.sqrt(7.0)).log_prob(3 * ONE)
    assert field.sweep() == pytest.approx(float(evidence))
    assert field.posterior("weight").rsample().shape == (2, 3)
    assert field.posterior("weight").event_shape == (2, 3)


def test_states_of_a_chain_one_by_one() -> None:
    """Sites of a sequence, each with its own name, are discrete sites like others."""
    moves, seen = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64), tensor(0.1, 2.2, 1.8)

    def model() -> None:
        state = torch.tensor(0)
        for time in pyro.markov(range(3)):
            state = pyro.sample(f"state_{time}", dist.Categorical(moves[state]))
            pyro.sample(f"x_{time}", dist.Normal(2.0 * state, ONE), obs=seen[time])

    field = MeanField(model)
    assert field.fit(tolerance=1e-12).monotone
    r = [field.posterior(f"state_{time}").probs for time in range(3)]
    scores = dist.Normal(tensor(0, 2), 1.0).log_prob(seen[1]) + r[0] @ moves.log() + moves.log() @ r[2]
    torch.testing.assert_close(r[1], scores.softmax(0), atol=1e-5, rtol=0)


def test_a_module_with_random_parts() -> None:
    class Line(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.slope = PyroSample(dist.Normal(0 * ONE, 2.0))

        def forward(self, x: Tensor, y: Tensor) -> None:
            mean = self.slope * x
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    x, y = tensor(1, 2, 3), tensor(2.1, 3.9, 6.2)
    field = MeanField(Line(), x, y)
    field.sweep()
    torch.testing.assert_close(field.posterior("slope").loc, (x * y).sum() / (0.25 + (x * x).sum()))


def test_factors_of_principal_components_alternate() -> None:
    """Both the latent vectors and the matrix are random: their product is conjugate to each, not to both."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 1, generator=generator, dtype=torch.float64) * tensor(1, -2, 0.5)
    x = x + 0.1 * torch.randn(12, 3, generator=generator, dtype=torch.float64)

    def model() -> None:
        matrix = pyro.sample("matrix", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
        noise = pyro.sample("noise", dist.Gamma(ONE, 0.1))
        with pyro.plate("data", 12):
            z = pyro.sample("z", dist.Normal(0 * ONE, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * matrix, noise**-0.5).to_event(1), obs=x)

    field = MeanField(model)
    history = field.fit(sweeps=60, tolerance=1e-7)
    assert history.monotone, history.why
    direction = field.posterior("matrix").mean
    first = torch.linalg.svd(x).Vh[0]
    assert float((direction / direction.norm() @ first).abs()) > 0.999
    assert 0.05 < float(field.posterior("noise").mean ** -0.5) < 0.2
