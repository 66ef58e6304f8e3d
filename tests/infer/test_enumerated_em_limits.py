# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""EM for any program at its limits: no data, equal data, collapse, low precision, and what is refused."""

from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats, integers
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_dgm.infer import EnumeratedEM, MeanField
from tests.infer.enumerated import F64, mixture, points


def test_plates_without_a_size_and_scales() -> None:
    x = points()[:, 0].contiguous()

    def model(x: Tensor, *, scale: float = 1.0, only: float = 1.0) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 2.0], dtype=F64))
        with pyro.plate("data", dim=-1), poutine.scale(scale=scale):
            z = pyro.sample("z", dist.Categorical(torch.ones(len(x), 2, dtype=F64)))
            with poutine.scale(scale=only):
                pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    plain, scaled = EnumeratedEM(model, x), EnumeratedEM(partial(model, scale=3.0), x)
    assert 3 * plain(x)["loss"] == pytest.approx(float(scaled(x)["loss"]), abs=1e-12)
    loc = torch.tensor([-1.0, 2.0], dtype=F64)
    table = dist.Normal(loc, 1.0).log_prob(x[:, None]) - torch.tensor(2.0, dtype=F64).log()
    assert float(plain(x)["loss"]) == pytest.approx(-float(table.logsumexp(1).mean()), abs=1e-12)
    with pytest.raises(ValueError, match="do not share one scale"):
        EnumeratedEM(partial(model, only=2.0), x)(x)


def test_a_component_without_data_stays_where_it_is() -> None:
    x = torch.randn(50, 2, dtype=F64)

    def model(x: Tensor) -> None:
        weights = pyro.param("weights", torch.tensor([0.5, 0.5], dtype=F64), constraint=constraints.simplex)
        loc = pyro.param("loc", torch.tensor([[0.0, 0.0], [1e6, 1e6]], dtype=F64))
        scale = pyro.param("scale", torch.ones(2, 1, dtype=F64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)

    step = EnumeratedEM(model, x)
    history = step.fit(x, sweeps=5)
    assert history.monotone
    assert all(value.isfinite().all() for value in step.values.values())
    torch.testing.assert_close(step.values["loc"][1], torch.full((2,), 1e6, dtype=F64))
    torch.testing.assert_close(step.values["loc"][0], x.mean(0))


def test_a_rate_of_nothing_goes_to_zero() -> None:
    x = torch.tensor([0.0, 0, 0, 0, 30, 35], dtype=F64)

    def model(x: Tensor) -> None:
        rate = pyro.param("rate", torch.tensor([1.0, 30.0], dtype=F64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(2, dtype=F64)))
            pyro.sample("x", dist.Poisson(rate[z]), obs=x)

    step = EnumeratedEM(model, x)
    history = step.fit(x, sweeps=8, tolerance=0)
    assert history.monotone
    assert step.ways == {"rate": "closed form: rate or precision"}
    torch.testing.assert_close(step.values["rate"], torch.tensor([0.0, 32.5], dtype=F64))


def test_a_collapse_is_named() -> None:
    x = torch.tensor([0.0, 0.0, 5.0, 6.0, 7.0])

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([0.0, 6.0]))
        scale = pyro.param("scale", torch.tensor([0.01, 1.0]), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    with pytest.raises(ValueError, match="prior"):
        EnumeratedEM(model, x).fit(x, sweeps=200, tolerance=0)


@given(
    x=arrays(float, integers(1, 12), elements=floats(-5, 5)),
    loc=arrays(float, 3, elements=floats(-6, 6)),
    components=integers(1, 3),
    seed=integers(0, 1000),
)
def test_no_sweep_lowers_the_objective(x: Any, loc: Any, components: int, seed: int) -> None:
    """Few data, equal data, more components than data, components at one place: it never falls, and is never NaN."""
    torch.manual_seed(seed)
    data, start = torch.from_numpy(x), torch.from_numpy(loc)[:components].clone()

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.randn(components, dtype=F64))
            self.loc = nn.Parameter(start)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("components", components):
                rate = pyro.sample("rate", dist.Gamma(torch.tensor(1.5, dtype=F64), 1.0))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Categorical(logits=self.logits))
                pyro.sample("x", dist.Normal(self.loc[z], rate[z].rsqrt()), obs=x)

    step = EnumeratedEM(Program(), data)
    history = step.fit(data, sweeps=8, tolerance=0)
    assert history.monotone, history.why
    assert all(way.startswith("closed form") for way in step.ways.values()), step.ways


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_precision_and_every_device(device: torch.device, dtype: torch.dtype) -> None:
    x = points(dtype=dtype, device=device)
    step = EnumeratedEM(mixture, x)
    history = step.fit(x, sweeps=20)
    assert history.monotone
    assert all(way.startswith("closed form") for way in step.ways.values())
    assert all(value.dtype == dtype and value.device.type == device.type for value in step.values.values())


def _continuous(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x)):
        z = pyro.sample("hidden", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _infinite(x: Tensor) -> None:
    rate = pyro.param("rate", torch.ones(()), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("hidden", dist.Poisson(rate))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _chain(x: Tensor) -> None:
    z = pyro.param("z", torch.zeros(()))
    for t in pyro.markov(range(len(x))):
        z = pyro.sample("hidden" if t == 0 else f"hidden_{t}", dist.Normal(z, 1.0))
        pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[t])


@pytest.mark.parametrize("model", [_continuous, _infinite, _chain])
def test_what_cannot_be_summed_is_refused_by_name(model: Any) -> None:
    with pytest.raises(ValueError, match="'hidden.*cannot be summed out.*ELBO or ReweightedWakeSleep"):
        EnumeratedEM(model, torch.zeros(3))


def test_wrong_settings_are_refused() -> None:
    x = points()
    with pytest.raises(ValueError, match="gradient_steps=0"):
        EnumeratedEM(mixture, x, gradient_steps=0)
    with pytest.raises(ValueError, match="online without size"):
        EnumeratedEM(mixture, x, online=torch.optim.SGD)
    with pytest.raises(ValueError, match="start for .*'nothing'"):
        EnumeratedEM(mixture, x, start={"nothing": x})
    with pytest.raises(ValueError, match="must have the shape"):
        EnumeratedEM(mixture, x, start={"means": x})
    with pytest.raises(ValueError, match="sweeps=-1"):
        EnumeratedEM(mixture, x).fit(x, sweeps=-1)
    with pytest.raises(ValueError, match="nothing to estimate"):
        EnumeratedEM(lambda: pyro.sample("z", dist.Bernoulli(0.5)))
    with pytest.raises(ValueError, match="without data"):
        EnumeratedEM(mixture, x).epoch_end()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for method in (EnumeratedEM, MeanField):
        with pytest.raises(ValueError, match=f"{method.__name__} runs in one process, and there are 2"):
            method(mixture, points())
