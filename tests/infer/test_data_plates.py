# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Plates over features are no plates over data: they may hold parameters, and a datum is a whole one."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dgm.infer import EnumeratedEM
from tests.infer.enumerated import F64

ONE = torch.ones((), dtype=F64)


def shifts(x: Tensor, *, prior: bool = True) -> None:
    """Each pixel has a brightness, with a prior or without; each picture is as dark as that, or brighter by 3."""
    pixels = pyro.plate("pixels", x.shape[1], dim=-1)
    if prior:
        with pixels:
            loc = pyro.sample("loc", dist.Normal(0 * ONE, 2.0))
    else:
        loc = pyro.param("loc", torch.zeros(x.shape[1], dtype=F64))
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Bernoulli(0.3 * ONE))
        with pixels:
            pyro.sample("x", dist.Normal(loc + 3 * z, 1.0), obs=x)


def pictures() -> Tensor:
    return torch.randn(20, 3, dtype=F64) + 3 * (torch.rand(20, 1) < 0.3) + torch.tensor([0.0, 2.0, -1.0], dtype=F64)


def exact(x: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
    """Mean log-likelihood in nats per picture, and the probability that each is bright."""
    tables = [dist.Normal(loc + 3 * z, 1.0).log_prob(x).sum(1) for z in (0, 1)]
    table = torch.stack([tables[0] + (0.7 * ONE).log(), tables[1] + (0.3 * ONE).log()])
    return table.logsumexp(0).mean(), table.softmax(0)[1]


def test_nats_are_per_picture_and_not_per_pixel() -> None:
    x = pictures()
    pyro.clear_param_store()
    step = EnumeratedEM(shifts, x, prior=False)
    found = step.fit(x, prior=False, sweeps=3, tolerance=0).objectives
    assert found[0] == pytest.approx(float(exact(x, torch.zeros(3, dtype=F64))[0]), abs=1e-12)
    assert found[-1] == pytest.approx(float(exact(x, step.values["loc"])[0]), abs=1e-12)


def test_variables_of_features_are_estimated_with_their_prior() -> None:
    x = pictures()
    step = EnumeratedEM(shifts, x, start={"loc": torch.zeros(3, dtype=F64)})
    likelihood, bright = exact(x, torch.zeros(3, dtype=F64))
    log_prior = dist.Normal(0 * ONE, 2.0).log_prob(torch.zeros(3, dtype=F64)).sum()
    history = step.fit(x, sweeps=1, tolerance=0)
    assert history.objectives[0] == pytest.approx(float(likelihood + log_prior / 20), abs=1e-12)
    mean = (x - 3 * bright[:, None]).sum(0) / (20 + 1 / 4)
    torch.testing.assert_close(step.values["loc"], mean, rtol=0, atol=1e-9)
    parts = EnumeratedEM(shifts, x, start={"loc": torch.zeros(3, dtype=F64)})
    for part in x.split(7):
        parts(part)
    parts.epoch_end()
    torch.testing.assert_close(parts.values["loc"], mean, rtol=0, atol=1e-9)
    assert parts.history.objectives[0] == pytest.approx(history.objectives[0], abs=1e-12)


def labelled(x: Tensor, y: Tensor) -> None:
    """Two sets of data: hidden labels in one, seen ones in the other."""
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0], dtype=F64))
    with pyro.plate("unknown", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5 * ONE))
        pyro.sample("x", dist.Normal(loc[z.long()], 1.0), obs=x)
    with pyro.plate("known", len(y)):
        pyro.sample("y", dist.Normal(loc[0], 1.0), obs=y)


def nested(x: Tensor) -> None:
    """A hidden variable for each picture, and one for each pixel."""
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0], dtype=F64))
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Bernoulli(0.5 * ONE))
        with pyro.plate("pixels", x.shape[1], dim=-1):
            on = pyro.sample("on", dist.Bernoulli(0.25 + 0.5 * z))
            pyro.sample("x", dist.Normal(loc[on.long()], 1.0), obs=x)


def words(x: Tensor) -> None:
    """Nothing but a topic for each word."""
    shows = pyro.param("shows", torch.tensor([[0.5, 0.5], [0.1, 0.9]], dtype=F64))
    with pyro.plate("documents", len(x), dim=-2), pyro.plate("words", x.shape[1], dim=-1):
        topic = pyro.sample("topic", dist.Bernoulli(0.5 * ONE))
        pyro.sample("x", dist.Categorical(shows[topic.long()]), obs=x.long())


def visible(x: Tensor) -> None:
    """Nothing hidden: a variable for each pixel, and pictures."""
    with pyro.plate("pixels", x.shape[1], dim=-1):
        loc = pyro.sample("loc", dist.Normal(0 * ONE, 2.0))
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "sizes", "plates", "count"),
    [
        (shifts, [(6, 3)], {"data"}, 6),
        (labelled, [(6,), (4,)], {"known", "unknown"}, 10),
        (nested, [(6, 3)], {"data"}, 6),
        (words, [(6, 3)], {"documents", "words"}, 18),
        (visible, [(6, 3)], {"data"}, 6),
    ],
)
def test_data_are_what_hidden_variables_are_of(
    model: Any, sizes: list[tuple[int, ...]], plates: set[str], count: int
) -> None:
    args = [torch.zeros(size, dtype=F64) for size in sizes]
    step = EnumeratedEM(model, *args)
    assert step.program.plates == plates
    assert step._expect(tuple(args), {}).count == count
