# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""EM for any program with discrete latent variables, against formulas, full enumeration and scikit-learn."""

import itertools
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_dgm.infer import EnumeratedEM
from tests.infer.enumerated import F64, Diagonal, hmm, mixture, points, reference


@pytest.mark.parametrize(
    ("matrix", "name"),
    [
        ("covariance_matrix", "covariance"),
        ("precision_matrix", "precision matrix"),
        ("scale_tril", "Cholesky factor of a covariance"),
    ],
)
def test_a_gaussian_mixture_is_that_of_scikit_learn(matrix: str, name: str) -> None:
    x = points()
    step = EnumeratedEM(partial(mixture, matrix=matrix), x)
    for sweeps in (1, 2, 7):
        pyro.clear_param_store()
        step = EnumeratedEM(partial(mixture, matrix=matrix), x)
        history = step.fit(x, sweeps=sweeps, tolerance=0)
        oracle = reference(x, sweeps, "full", torch.eye(2).repeat(3, 1, 1))
        torch.testing.assert_close(step.values["means"], torch.from_numpy(oracle.means_), rtol=0, atol=1e-9)
        torch.testing.assert_close(step.values["weights"], torch.from_numpy(oracle.weights_), rtol=0, atol=1e-9)
        assert history.objectives[-1] == pytest.approx(oracle.score(x.numpy()), abs=1e-10)
        assert history.monotone
    assert step.ways["matrices"] == f"closed form: {name}"
    assert step.ways["weights"] == "closed form: probabilities"
    assert step.ways["means"] == "closed form: least squares in each row"


@pytest.mark.parametrize(("shape", "kind", "start"), [((3, 2), "diag", (3, 2)), ((3, 1), "spherical", (3,))])
def test_unconstrained_parameters_have_closed_forms_too(shape: Any, kind: str, start: Any) -> None:
    x, model = points(), Diagonal(shape)
    step = EnumeratedEM(model.model, x)
    step.fit(x, sweeps=6, tolerance=0)
    oracle = reference(x, 6, kind, torch.ones(start))
    torch.testing.assert_close(model.loc.detach(), torch.from_numpy(oracle.means_), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        2 * model.log_scale.detach().reshape(start), torch.from_numpy(oracle.covariances_).log(), rtol=0, atol=1e-9
    )
    assert step.module is model
    assert step.ways == {
        "loc": "closed form: weighted mean",
        "log_scale": "closed form: log of a scale",
        "logits": "closed form: logits of probabilities",
    }


def test_a_mixture_of_poissons_is_by_hand() -> None:
    x = torch.tensor([0.0, 1, 1, 2, 0, 7, 9, 8, 12, 3], dtype=F64)
    weights, rates = torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([1.0, 6.0], dtype=F64)

    def model(x: Tensor) -> None:
        w = pyro.param("w", weights.clone(), constraint=constraints.unit_interval)
        rate = pyro.param("rate", rates.clone(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(w[1])).long()
            pyro.sample("x", dist.Poisson(rate[z]), obs=x)

    step = EnumeratedEM(model, x)
    for _ in range(3):
        loss = step(x)["loss"]
        step.epoch_end()
        table = weights.log() + dist.Poisson(rates).log_prob(x[:, None])
        share = table.softmax(1)
        torch.testing.assert_close(loss, -table.logsumexp(1).mean())
        weights, rates = share.mean(0), (share * x[:, None]).sum(0) / share.sum(0)
        torch.testing.assert_close(step.values["w"][1], weights[1])
        torch.testing.assert_close(step.values["rate"], rates)
    assert step.ways == {"rate": "closed form: rate or precision", "w": "closed form: probability"}


def baum_welch(x: Tensor, lengths: Tensor, begin: Tensor, moves: Tensor, shows: Tensor) -> tuple[Tensor, ...]:
    """One sweep by forward and backward recursions: log-likelihood and the new parameters."""
    starts, pairs, seen, total = (torch.zeros_like(begin), torch.zeros_like(moves), torch.zeros_like(shows), 0.0)
    for row, length in zip(x, lengths, strict=True):
        forward, backward = [begin * shows[:, row[0]]], [torch.ones_like(begin)]
        for t in range(1, int(length)):
            forward.append((forward[-1] @ moves) * shows[:, row[t]])
        for t in range(int(length) - 1, 0, -1):
            backward.insert(0, moves @ (shows[:, row[t]] * backward[0]))
        evidence = forward[-1].sum()
        total = total + evidence.log()
        for t in range(int(length)):
            share = forward[t] * backward[t] / evidence
            starts += share if t == 0 else 0
            seen[:, row[t]] += share
            if t:
                pairs += forward[t - 1][:, None] * moves * (shows[:, row[t]] * backward[t]) / evidence
    return (torch.as_tensor(total), *(c / c.sum(-1, keepdim=True) for c in (starts, pairs, seen)))


def test_a_hidden_markov_model_is_baum_welch() -> None:
    x, lengths = torch.randint(3, (5, 6)), torch.tensor([6, 4, 6, 1, 3])
    step = EnumeratedEM(hmm, x, lengths)
    names = ("begin", "moves", "shows")
    values = tuple(step.values[name] for name in names)
    for sweep in range(4):
        history = step.fit(x, lengths, sweeps=1, tolerance=0)
        total, *values = baum_welch(x, lengths, *values)  # type: ignore[assignment]
        assert history.objectives[0] == pytest.approx(float(total) / 5, abs=1e-12), sweep
        for name, value in zip(names, values, strict=True):
            torch.testing.assert_close(step.values[name], value, rtol=0, atol=1e-9)
        assert history.monotone
    assert set(step.ways.values()) == {"closed form: probabilities"}


def test_one_long_chain_needs_no_plate() -> None:
    x = torch.randint(3, (1, 30))

    def chain(row: Tensor) -> None:
        begin = pyro.param("begin", torch.tensor([0.6, 0.4], dtype=F64), constraint=constraints.simplex)
        moves = pyro.param("moves", torch.eye(2, dtype=F64) * 0.5 + 0.25, constraint=constraints.simplex)
        shows = pyro.param(
            "shows", torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=F64), constraint=constraints.simplex
        )
        z: Any = None
        for t in pyro.markov(range(len(row))):
            z = pyro.sample(f"z_{t}", dist.Categorical(begin if z is None else moves[z]))
            pyro.sample(f"x_{t}", dist.Categorical(shows[z]), obs=row[t])

    step = EnumeratedEM(chain, x[0])
    old = step.values
    history = step.fit(x[0], sweeps=1)
    total, *values = baum_welch(x, torch.tensor([30]), old["begin"], old["moves"], old["shows"])
    assert history.objectives[0] == pytest.approx(float(total), abs=1e-11)
    for name, value in zip(("begin", "moves", "shows"), values, strict=True):
        torch.testing.assert_close(step.values[name], value, rtol=0, atol=1e-9)
    step(x[0])
    with pytest.raises(ValueError, match="outside every plate over data"):
        step(x[0])


def test_naive_bayes_learns_from_data_without_labels() -> None:
    labels, known = torch.randint(3, (40,)), torch.rand(40) < 0.4
    x = (torch.rand(40, 4, dtype=F64) < (0.2 + 0.3 * labels)[:, None]).to(F64)
    prior, probs = torch.tensor([0.2, 0.3, 0.5], dtype=F64), torch.rand(3, 4, dtype=F64) * 0.8 + 0.1

    def model(x: Tensor) -> None:
        p = pyro.param("prior", prior.clone(), constraint=constraints.simplex)
        q = pyro.param("probs", probs.clone(), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(p), obs=labels, obs_mask=known)
            pyro.sample("x", dist.Bernoulli(q[y]).to_event(1), obs=x)

    step = EnumeratedEM(model, x)
    for _ in range(3):
        history = step.fit(x, sweeps=1, tolerance=0)
        table = prior.log() + dist.Bernoulli(probs).to_event(1).log_prob(x[:, None])
        row = torch.arange(40)
        total = torch.where(known, table[row, labels], table.logsumexp(1)).sum()
        share = torch.where(known[:, None], nn.functional.one_hot(labels, 3).to(F64), table.softmax(1))
        prior, probs = share.mean(0), (share.mT @ x) / share.sum(0)[:, None]
        assert history.objectives[0] == pytest.approx(float(total) / 40, abs=1e-12)
        torch.testing.assert_close(step.values["prior"], prior, rtol=0, atol=1e-9)
        torch.testing.assert_close(step.values["probs"], probs, rtol=0, atol=1e-9)


def test_two_causes_are_inferred_together() -> None:
    x, slopes = torch.randn(30, dtype=F64) * 2, torch.tensor([1.5, -0.5], dtype=F64)

    def model(x: Tensor) -> None:
        logits = pyro.param("logits", torch.tensor([0.3, -0.2], dtype=F64))
        weights = pyro.param("weights", slopes.clone())
        scale = pyro.param("scale", torch.tensor(1.0, dtype=F64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=logits[0]))
            b = pyro.sample("b", dist.Bernoulli(logits=logits[1]))
            pyro.sample("x", dist.Normal(weights[0] * a + weights[1] * b, scale), obs=x)

    step = EnumeratedEM(model, x)
    p, w, s = torch.tensor([0.3, -0.2], dtype=F64).sigmoid(), slopes, torch.tensor(1.0, dtype=F64)
    for _ in range(3):
        history = step.fit(x, sweeps=1, tolerance=0)
        bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)), dtype=F64)  # (4, 2)
        table = dist.Bernoulli(p).to_event(1).log_prob(bits) + dist.Normal(bits @ w, s).log_prob(x[:, None])
        share = table.softmax(1)  # (N, 4)
        gram = torch.einsum("nk,ki,kj->ij", share, bits, bits)
        w = torch.linalg.solve(gram, torch.einsum("nk,ki,n->i", share, bits, x))
        p, s = (share @ bits).mean(0), (share * (x[:, None] - bits @ w).square()).sum(1).mean().sqrt()
        assert history.objectives[0] == pytest.approx(float(table.logsumexp(1).mean()), abs=1e-12)
        torch.testing.assert_close(step.values["logits"].sigmoid(), p, rtol=0, atol=1e-9)
        torch.testing.assert_close(step.values["weights"], w, rtol=0, atol=1e-9)
        torch.testing.assert_close(step.values["scale"], s, rtol=0, atol=1e-9)
    assert step.ways["weights"].startswith("closed form: least squares")


@pytest.mark.parametrize(
    ("family", "parameter", "constraint", "start", "oracle"),
    [
        (dist.Exponential, "rate", constraints.positive, [1.0, 2.0], lambda w, x: w.sum(0) / (w * x).sum(0)),
        (partial(dist.Gamma, 2.0), "rate", constraints.positive, [1.0, 2.0],
         lambda w, x: 2 * w.sum(0) / (w * x).sum(0)),
        (dist.Geometric, "probs", constraints.unit_interval, [0.3, 0.6],
         lambda w, x: w.sum(0) / (w * (x.round() + 1)).sum(0)),
        (partial(dist.LogNormal, scale=1.0), "loc", constraints.real, [0.0, 1.0],
         lambda w, x: (w * x.log()).sum(0) / w.sum(0)),
        (partial(dist.Laplace, 0.0), "scale", constraints.positive, [1.0, 2.0],
         lambda w, x: (w * x).sum(0) / w.sum(0)),
    ],
)  # fmt: skip
def test_families_of_one_parameter(family: Any, parameter: str, constraint: Any, start: Any, oracle: Any) -> None:
    x, first = dist.Exponential(torch.ones(60, dtype=F64)).sample() + 0.01, torch.tensor(start, dtype=F64)
    data = x.round() if family is dist.Geometric else x

    def model(x: Tensor) -> None:
        value = pyro.param("value", first.clone(), constraint=constraint)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(2, dtype=F64)))
            pyro.sample("x", family(**{parameter: value[z]}), obs=x)

    step = EnumeratedEM(model, data)
    step.fit(data, sweeps=1, tolerance=0)
    share = family(**{parameter: first}).log_prob(data[:, None]).softmax(1)
    torch.testing.assert_close(step.values["value"], oracle(share, x[:, None]), rtol=1e-9, atol=0)
    assert step.ways["value"].startswith("closed form")


def test_documents_in_nested_plates_are_by_hand() -> None:
    """A topic for each document, and words within: the inner plate's terms belong to one variable of the outer."""
    words = torch.randint(4, (5, 7))  # (words, documents)
    prior = torch.tensor([0.3, 0.7], dtype=F64)
    topics = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=F64)

    def model(words: Tensor) -> None:
        p = pyro.param("prior", prior.clone(), constraint=constraints.simplex)
        q = pyro.param("topics", topics.clone(), constraint=constraints.simplex)
        with pyro.plate("documents", 7, dim=-1):
            z = pyro.sample("z", dist.Categorical(p))
            with pyro.plate("words", 5, dim=-2):
                pyro.sample("word", dist.Categorical(q[z]), obs=words)

    step = EnumeratedEM(model, words)
    history = step.fit(words, sweeps=1, tolerance=0)
    table = prior.log() + topics.log()[:, words].sum(1).mT  # (documents, topics)
    share, counts = table.softmax(1), nn.functional.one_hot(words, 4).to(F64).sum(0)
    found = share.mT @ counts
    assert history.objectives[0] == pytest.approx(float(table.logsumexp(1).mean()), abs=1e-12)  # per document
    torch.testing.assert_close(step.values["prior"], share.mean(0), rtol=0, atol=1e-9)
    torch.testing.assert_close(step.values["topics"], found / found.sum(1, keepdim=True), rtol=0, atol=1e-9)


def test_a_variable_that_all_data_share() -> None:
    x = torch.randn(6, dtype=F64) + 0.3

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-0.5, 0.5], dtype=F64))
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4, dtype=F64))).long()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    step = EnumeratedEM(model, x)
    history = step.fit(x, sweeps=1, tolerance=0)
    table = torch.tensor([0.6, 0.4], dtype=F64).log() + dist.Normal(torch.tensor([-0.5, 0.5], dtype=F64), 1.0).log_prob(
        x[:, None]
    ).sum(0)
    assert history.objectives[0] == pytest.approx(float(table.logsumexp(0)) / 6, abs=1e-12)
    torch.testing.assert_close(step.values["loc"], x.mean().expand(2))
    step(x[:3])
    with pytest.raises(ValueError, match="'z'.* outside every plate over data"):
        step(x[3:])
