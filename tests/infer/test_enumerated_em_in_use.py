# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""EM for any program: priors, gradients, batches, modules and training."""

import copy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroModule, PyroParam, PyroSample, pyro_method
from torch import Tensor, nn

from pyro_dgm.infer import EnumeratedEM, em
from pyro_dgm.infer.enumeration import enumerate_program, expected_log_joint, posterior_weights
from pyro_dgm.models import GaussianMixture
from pyro_dgm.train import Step, Trainer
from tests.infer.enumerated import F64, Diagonal, bayesian, hmm, middle, points, reference


def test_global_variables_are_at_the_mode_of_their_posterior() -> None:
    x = points()[:, 0].contiguous()
    w, m, t = (torch.tensor(v, dtype=F64) for v in ([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]))
    step = EnumeratedEM(bayesian, x, start={"weights": w, "loc": m, "precision": t})
    before = dist.Dirichlet(torch.full((2,), 3.0, dtype=F64)).log_prob(w)
    two = torch.tensor(2.0, dtype=F64)
    before = before + dist.Normal(0.0, two).log_prob(m).sum() + dist.Gamma(two, 1.5).log_prob(t).sum()
    table = w.log() + dist.Normal(m, t.rsqrt()).log_prob(x[:, None])
    share = table.softmax(1)
    history = step.fit(x, sweeps=1, tolerance=0)
    assert history.objectives[0] == pytest.approx(float(table.logsumexp(1).sum() + before) / len(x), abs=1e-12)
    count, total = share.sum(0), (share * x[:, None]).sum(0)
    torch.testing.assert_close(step.values["weights"], (count + 2) / (len(x) + 4), rtol=0, atol=1e-9)
    # The mean's prior does not scale with the precision, so the two take turns: twice in the first sweep.
    for _ in range(2):
        m = t * total / (t * count + 0.25)
        t = (count / 2 + 1) / ((share * (x[:, None] - m).square()).sum(0) / 2 + 1.5)
    torch.testing.assert_close(step.values["loc"], m, rtol=0, atol=1e-9)
    torch.testing.assert_close(step.values["precision"], t, rtol=0, atol=1e-9)
    history = step.fit(x, sweeps=400, tolerance=1e-13)
    assert history.monotone
    assert history.converged
    _require_stationary(bayesian, step, x)


def _require_stationary(model: Any, step: EnumeratedEM, x: Tensor) -> None:
    """Whether the gradient of the log-posterior is zero along every direction, by stock Pyro."""
    leaves = [parameter.leaf for parameter in step.parameters]
    values = {parameter.name: parameter.value() for parameter in step.parameters if parameter.transform is not None}
    fixed = poutine.condition(poutine.substitute(model, data=values), data=values)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are variables and no parameters
        loss = elbo.differentiable_loss(config_enumerate(fixed, default="parallel"), lambda *_: None, x)
    for gradient in torch.autograd.grad(loss, leaves):
        assert gradient.abs().max() < 1e-4


@pytest.mark.parametrize("closed_forms", [True, False])
def test_gradients_reach_the_same_maximum(closed_forms: bool) -> None:  # noqa: FBT001
    x = points(100)
    step = EnumeratedEM(Diagonal((3, 1)).model, x, closed_forms=closed_forms)
    history = step.fit(x, sweeps=200, tolerance=1e-7)
    assert history.monotone
    assert history.converged
    oracle = reference(x, 300, "spherical", torch.ones(3))
    assert history.objectives[-1] == pytest.approx(oracle.score(x.numpy()), abs=1e-5)
    assert all(way.startswith("closed") == closed_forms for way in step.ways.values())


def test_a_network_climbs_where_a_formula_jumps() -> None:
    """A mixture of experts: a network says which of two lines it is, and neither has a closed form for the network."""
    x = torch.linspace(-2, 2, 80, dtype=F64)
    y = torch.where(x > 0.3, 2 * x, -x) + 0.1 * torch.randn(80, dtype=F64)
    gate = nn.Linear(1, 2).double()

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.log_scale = gate, nn.Parameter(torch.zeros(2, dtype=F64))
            self.lines = nn.Parameter(torch.tensor([[1.0, 0.0], [-1.0, 0.1]], dtype=F64))

        def forward(self, x: Tensor, y: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Categorical(logits=self.gate(x[:, None])))
                line = self.lines[z]
                pyro.sample("y", dist.Normal(line[..., 0] * x + line[..., 1], self.log_scale.exp()[z]), obs=y)

    model = Experts()
    step = EnumeratedEM(model, x, y)
    history = step.fit(x, y, sweeps=30)
    assert history.monotone
    assert history.objectives[-1] > history.objectives[0] + 0.5
    assert step.ways["gate.weight"] == "gradient"
    assert step.ways["lines"] == "closed form: least squares in each row"
    assert step.ways["log_scale"] == "closed form: log of a scale"
    torch.testing.assert_close(model.lines[:, 0].detach(), torch.tensor([2.0, -1.0], dtype=F64), rtol=0, atol=0.1)


class Modular(PyroModule):
    """A mixture with a constrained parameter, and a variable with a prior, as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = PyroParam(torch.tensor([0.4, 0.6], dtype=F64), constraint=constraints.simplex)
        self.loc = PyroSample(dist.Normal(torch.zeros(2, dtype=F64), 3.0).to_event(1))
        self.scale = nn.Parameter(torch.tensor(1.0, dtype=F64), requires_grad=False)

    @pyro_method
    def model(self, x: Tensor) -> None:
        weights, loc, scale = self.weights, self.loc, self.scale
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def test_pyro_modules_and_their_state() -> None:
    x, model = points()[:, 0].contiguous(), Modular()
    step = EnumeratedEM(model.model, x, start={"loc": torch.tensor([-1.0, 2.0], dtype=F64)})
    history = step.fit(x, sweeps=5)
    assert history.monotone
    assert set(step.ways) == {"weights", "loc"}
    torch.testing.assert_close(model.weights.detach(), step.values["weights"])
    again = EnumeratedEM(Modular().model, x)
    again.module.load_state_dict(step.module.state_dict())
    for name, value in step.values.items():
        torch.testing.assert_close(again.values[name], value)
    assert not list(pyro.get_param_store())


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_formulas_and_programs_agree(covariance: Any) -> None:
    """The house's mixture by its own formulas, and by its program alone."""
    x = points()
    model = GaussianMixture(dim=2, components=3, covariance=covariance, ridge=0).double()
    model.start(x)
    program = copy.deepcopy(model)
    step = EnumeratedEM(program.model, x, gradient_steps=40)
    ours, formulas = step.fit(x, sweeps=4, tolerance=0), em(model, x, sweeps=4, tolerance=0, seed=None)
    assert ours.objectives == pytest.approx(formulas.objectives, abs=1e-7)
    assert step.module is program


def test_parts_of_the_data_add_up_to_a_sweep() -> None:
    x, start = points()[:, 0].contiguous(), {"loc": torch.tensor([-1.0, 1.0], dtype=F64)}
    whole, parts = (EnumeratedEM(bayesian, x, start=start | middle()) for _ in range(2))
    for _ in range(3):
        whole(x)
        for part in x.split(60):
            parts(part)
        state = parts.state_dict()
        parts(x)  # one too many, which the state knows nothing of
        parts.load_state_dict(state)
        assert whole.evaluate() == pytest.approx(parts.evaluate(), abs=1e-12)
        whole.maximize()
        parts.maximize()
    for name, value in whole.values.items():
        torch.testing.assert_close(parts.values[name], value, rtol=0, atol=1e-6)


def test_online_steps_come_near_the_maximum() -> None:
    x, model = points(400), Diagonal((3, 1))
    best = EnumeratedEM(Diagonal((3, 1)).model, x).fit(x, sweeps=200).objectives[-1]
    step = EnumeratedEM(model.model, x, online=partial(torch.optim.Adam, lr=0.02), size=400)
    for _ in range(40):
        for batch in x.split(50):
            loss = step(batch)["loss"]
        step.epoch_end()
    assert loss.isfinite()
    found = EnumeratedEM(model.model, x).fit(x, sweeps=0).objectives[-1]
    assert best - 0.01 < found <= best + 1e-6
    with pytest.raises(ValueError, match="works without online"):
        step.fit(x)


def test_a_subsampling_plate_keeps_its_choice_in_the_m_step() -> None:
    x = points()[:, 0].contiguous()

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 2.0], dtype=F64))
        with pyro.plate("data", len(x), subsample_size=20) as index:
            z = pyro.sample("z", dist.Categorical(torch.ones(2, dtype=F64)))
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x[index])

    step = EnumeratedEM(model, x)
    step(x)
    (index,) = step.state_dict()["pending"][0]["indices"].values()
    share = dist.Normal(step.values["loc"], 1.0).log_prob(x[index, None]).softmax(1)
    step.epoch_end()
    torch.testing.assert_close(step.values["loc"], (share * x[index, None]).sum(0) / share.sum(0))
    for _ in range(20):
        step(x)
        step.epoch_end()
    assert not step.history.monotone
    assert "subsamples" in (step.history.why or "")


def test_it_is_a_step_of_training(tmp_path: Path) -> None:
    x = points()
    step = EnumeratedEM(Diagonal((3, 2)).model, x)
    assert isinstance(step, Step)
    Trainer(epochs=5, progress=False, tensorboard=False).fit(step, list(x.split(50)), folder=tmp_path / "run")
    other = EnumeratedEM(Diagonal((3, 2)).model, x)
    other.fit(x, sweeps=5, tolerance=0)
    torch.testing.assert_close(step.values["loc"], other.values["loc"], rtol=0, atol=1e-9)
    assert step.history.monotone
    assert step.history.sweeps == 4


def test_the_expectation_touches_the_log_likelihood() -> None:
    """Fisher's identity: at the parameters of the E-step, Q has the gradient of log p(x), here that of stock Pyro."""
    x, lengths = torch.randint(3, (5, 6)), torch.tensor([6, 4, 6, 1, 3])
    step = EnumeratedEM(hmm, x, lengths)
    values = {parameter.name: parameter.value() for parameter in step.parameters}
    leaves = [parameter.leaf for parameter in step.parameters]
    with torch.no_grad():
        trace = enumerate_program(hmm, (x, lengths), {}, nesting=1, values=values, indices={})
    weights, total, _ = posterior_weights(trace, {"sequences"})
    again = enumerate_program(hmm, (x, lengths), {}, nesting=1, values=values, indices={})
    ours = torch.autograd.grad(expected_log_joint(again, weights)[0], leaves)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        config_enumerate(hmm, default="parallel"), lambda *_: None, x, lengths
    )
    torch.testing.assert_close(total, -loss.detach())
    for mine, stock in zip(ours, torch.autograd.grad(-loss, leaves), strict=True):
        torch.testing.assert_close(mine, stock, rtol=0, atol=1e-9)
