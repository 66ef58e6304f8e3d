# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mean field: the best factor given the others, coordinate ascent on the bound, and what is left below the evidence."""

import math

import pyro
import pyro.distributions as dist
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from pyro_dgm.infer import MeanField, coordinate_ascent
from pyro_dgm.models import BayesianMixture

DATA = torch.tensor([0.3, -1.2, 2.5, 1.1], dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)

numbers = st.floats(-4, 4, allow_subnormal=False)
tables = st.integers(1, 12).flatmap(lambda size: arrays(float, (size, 2), elements=numbers)).map(torch.from_numpy)


def unknown_normal(x: Tensor) -> None:
    precision = pyro.sample("precision", dist.Gamma(2 * ONE, 1.5))
    mean = pyro.sample("mean", dist.Normal(0.5 * ONE, (0.3 * precision) ** -0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, precision**-0.5), obs=x)


def clusters(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((3,), 0.7, dtype=x.dtype)))
    with pyro.plate("clusters", 3):
        precision = pyro.sample("precision", dist.Gamma(2 * ONE, 1.0))
        mean = pyro.sample("mean", dist.Normal(0 * ONE, 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(mean[z], precision[z] ** -0.5), obs=x)


def grid() -> tuple[Tensor, Tensor, float]:
    """Means, precisions, and the log of a cell of the grid over mean and log-precision."""
    log_precision = torch.linspace(-14, 5, 1200, dtype=torch.float64)[:, None]
    return torch.linspace(-25, 26, 3000, dtype=torch.float64), log_precision.exp(), math.log(19 / 1199 * 51 / 2999)


def log_joint(mean: Tensor, precision: Tensor) -> Tensor:
    prior = dist.Gamma(2 * ONE, 1.5).log_prob(precision) + dist.Normal(0.5, (0.3 * precision) ** -0.5).log_prob(mean)
    return prior + sum(dist.Normal(mean, precision**-0.5).log_prob(x) for x in DATA)


def log_q(field: MeanField, mean: Tensor, precision: Tensor) -> Tensor:
    return field.posterior("mean").log_prob(mean) + field.posterior("precision").log_prob(precision)


def test_the_gap_is_the_kl_divergence_to_the_posterior_before_and_after_each_update() -> None:
    """Log p(X) = L(q) + KL(q(T) || p(T | X)) for every q, so raising L lowers the divergence."""
    mean, precision, cell = grid()
    joint = log_joint(mean, precision)
    log_evidence = (joint + precision.log()).flatten().logsumexp(0) + cell
    field, divergences = MeanField(unknown_normal, DATA), []
    for name in ("mean", "precision", "mean", "precision", "mean"):
        q = log_q(field, mean, precision)
        share = (q + precision.log() + cell).exp()
        divergences.append(float((share * (q - joint + log_evidence)).sum()))
        torch.testing.assert_close(log_evidence - divergences[-1], field.bound(), atol=1e-5, rtol=0)
        field.update(name)
    assert divergences == sorted(divergences, reverse=True)
    assert divergences[-1] > 1e-3  # mean and precision do depend on each other


def test_the_best_factor_is_the_exponential_of_the_expected_log_joint() -> None:
    """Log q_j(T_j) = E_{i != j} log p(X, T) + const, with the expectation here by quadrature."""
    mean, precision, _ = grid()
    field = MeanField(unknown_normal, DATA)
    field.sweep()
    field.update("mean")
    share = (field.posterior("precision").log_prob(precision) + precision.log()).exp() * 19 / 1199
    expected = (share * log_joint(mean, precision)).sum(0)
    near = (mean - field.posterior("mean").loc).abs() < 5
    constant = (expected - field.posterior("mean").log_prob(mean))[near]
    assert float(constant.max() - constant.min()) < 1e-6


def test_no_other_factor_of_the_family_is_better() -> None:
    """L(q) = -KL(q_j || p-hat) + const is highest at q_j = p-hat, and there only."""
    field = MeanField(clusters, DATA)
    field.fit(sweeps=40, tolerance=1e-13)
    best = field.bound()
    torch.manual_seed(0)
    for factor in field.factors:
        for name, buffer in factor.named_buffers():
            if name == "support":
                continue
            kept = buffer.clone()
            for _ in range(3):
                noise = 0.05 * torch.randn_like(buffer)
                moved = (kept + noise).log_softmax(0) if name == "log_probs" else kept * noise.exp()
                buffer.copy_(moved)
                assert field.bound() < best
            buffer.copy_(kept)


@settings(max_examples=10)  # each runs the program a thousand times
@given(st.lists(numbers, min_size=1, max_size=8), st.integers(0, 3))
def test_updates_of_any_program_never_lower_the_bound(data: list[float], seed: int) -> None:
    """Block coordinate optimisation of the bound: each q_j in turn, given the others."""
    field = MeanField(clusters, torch.tensor(data, dtype=torch.float64), seed=seed)
    bound = float(field.bound())
    for name in field.names * 2:
        field.update(name)
        before, bound = bound, float(field.bound())
        assert bound >= before - 1e-9 * (1 + abs(before))


@given(tables, st.integers(1, 5), st.floats(0.01, 3), st.floats(0.01, 3))
def test_sweeps_of_the_bayesian_mixture_never_lower_the_bound(
    x: Tensor, components: int, concentration: float, mean_precision: float
) -> None:
    """The same for the formulas of Bishop (2006), section 10.2."""
    model = BayesianMixture(
        dim=2,
        components=components,
        concentration=concentration,
        mean_precision=mean_precision,
        prior_scatter=torch.eye(2),
    ).double()
    history = coordinate_ascent(model, x, sweeps=8)
    assert history.monotone, history.why


def test_a_posterior_that_factorises_is_found_exactly() -> None:
    """The gap closes if q(T) = p(T | X) is in the family: the bound is the evidence after one update."""

    def known_noise(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.5 * ONE, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    covariance = torch.eye(4, dtype=torch.float64) + 4
    evidence = dist.MultivariateNormal(torch.full_like(DATA, 0.5), covariance).log_prob(DATA)
    torch.testing.assert_close(torch.tensor(MeanField(known_noise, DATA).sweep()).double(), evidence)


def test_a_correlated_normal_keeps_its_mean_and_loses_variance() -> None:
    """The factors of a normal have its mean and the inverses of the diagonal of its precision (Bishop, eq. 10.12)."""

    def pair() -> None:
        a = pyro.sample("a", dist.Normal(1.0 * ONE, 1.0))
        pyro.sample("b", dist.Normal(0.8 * a - 1, 0.6))

    field = MeanField(pair)
    field.fit(sweeps=300, tolerance=0)
    diagonal = torch.tensor([1 + 0.64 / 0.36, 1 / 0.36], dtype=torch.float64)
    for name, mean, precision, variance in (("a", 1.0, diagonal[0], 1.0), ("b", -0.2, diagonal[1], 1.0)):
        q = field.posterior(name)
        torch.testing.assert_close(q.loc, mean * ONE, atol=1e-6, rtol=0)
        torch.testing.assert_close(q.variance, 1 / precision)
        assert q.variance < variance


def test_an_update_is_a_natural_gradient_step_of_length_one() -> None:
    """The bound's gradient to a natural parameter is F (optimum - here), with F the Fisher information of q there.

    Hoffman et al. (2013), section 2.3; here for the Dirichlet factor of a mixture's weights.
    """
    x = torch.stack([DATA, DATA.flip(0) + 2], -1)
    model = BayesianMixture(dim=2, components=3, prior_scatter=torch.eye(2)).double()
    model.start(x)
    bound = model.log_scores(x).logsumexp(-1).sum() + model.global_bound()
    (slope,) = torch.autograd.grad(bound, model.log_concentration)
    here = model.concentration.detach()
    fisher = torch.special.polygamma(1, here).diag() - torch.special.polygamma(1, here.sum())
    model.coordinate_update(model.coordinate_statistics(x))
    torch.testing.assert_close(slope / here, fisher @ (model.concentration.detach() - here))


def test_the_mean_over_mini_batches_is_the_step_of_all_data() -> None:
    """Natural parameters of a batch, scaled by N / B, are unbiased: their mean over batches is that of all data."""
    x = torch.stack([DATA, DATA.flip(0) + 2], -1)
    model = BayesianMixture(dim=2, components=3, prior_scatter=torch.eye(2)).double()
    model.start(x)
    whole = model.coordinate_statistics(x)
    parts = [model.coordinate_statistics(batch) for batch in x.split(2)]
    for name, value in whole.items():
        torch.testing.assert_close(torch.stack([2 * part[name] for part in parts]).mean(0), value)
