# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A compiled bound in Pyro's own hands: SVI, parameter statements, handlers, plates; and as a value with a gradient."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_dgm.infer import ELBO, IWAE, AutoFlow, GradientStep, compiled
from pyro_dgm.models import VAE, FlowModel
from tests import cases
from tests.infer.programs import OWN, black_and_white, objective
from tests.infer.test_compiled import assert_equal


def test_subsampled_plates_draw_anew():
    loc = nn.Parameter(torch.zeros(()))

    class Sub(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = loc

        def model(self, x):
            with pyro.plate("data", len(x), subsample_size=4) as index:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

        def guide(self, x):
            with pyro.plate("data", len(x), subsample_size=4):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    assert_equal(Sub(), torch.randn(20), IWAE(3), backend="graph")


def test_parameter_statements_train_under_svi():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, pyro.param("s", torch.tensor(2.0), dist.constraints.positive)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("a", torch.tensor(0.1)) * x + pyro.param("b", torch.tensor(0.0))
            pyro.sample("z", dist.Normal(loc, pyro.param("c", torch.tensor(1.0), dist.constraints.positive)))

    x, ends = torch.randn(8), []
    for make in (ELBO, partial(IWAE, 3), Trace_ELBO, TraceMeanField_ELBO):
        for wrap in (lambda bound: bound, partial(compiled, backend="graph")):
            pyro.clear_param_store()
            torch.manual_seed(0)
            model(x), guide(x)
            torch.manual_seed(0)
            svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), wrap(make()))
            losses = [svi.step(x) for _ in range(5)]
            torch.manual_seed(5)
            ends.append([*losses, svi.evaluate_loss(x), *(pyro.param(name).item() for name in "absc")])
        assert ends[-1] == pytest.approx(ends[-2], rel=1e-4)
        assert ends[-1][-4:] != [0.1, 0.0, 2.0, 1.0]


def test_parameters_that_were_cleared_are_made_anew():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x)

    def guide(x):
        pass

    fast, x = compiled(ELBO(), backend="graph"), torch.ones(4)
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.01}), fast)
    before = [svi.step(x) for _ in range(3)]
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.01}), fast)
    assert [svi.step(x) for _ in range(3)] == before


def test_svi_of_a_module():
    ends = []
    for wrap in (lambda bound: bound, partial(compiled, backend="graph")):
        pyro.clear_param_store()
        torch.manual_seed(0)
        vae = VAE(**OWN)
        x = black_and_white()
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), wrap(ELBO()))
        ends.append([svi.step(x) for _ in range(4)])
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)


def test_bounds_of_pyro_without_a_differentiable_loss_are_refused():
    with pytest.raises(TypeError, match="RenyiELBO.*IWAE"):
        compiled(RenyiELBO())
    with pytest.raises(ValueError, match="already"):
        compiled(compiled(ELBO()))
    with pytest.raises((ValueError, TypeError), match="fast"):
        compiled(ELBO(), backend="fast")


class Names(pyro.poutine.messenger.Messenger):
    def __init__(self):
        super().__init__()
        self.met = set()

    def _pyro_sample(self, msg):
        self.met.add(msg["name"])


def test_handlers_around_a_call_see_every_site():
    vae, x = VAE(**OWN), black_and_white()
    fast = compiled(ELBO(), backend="graph")
    for _ in range(2):
        with Names() as names:
            fast.differentiable_loss(vae.model, vae.guide, x)
        assert names.met == {"data", "z", "x"}
    scaled = pyro.poutine.scale(vae.model, 2.0), pyro.poutine.scale(vae.guide, 2.0)
    torch.manual_seed(0)
    ours = fast.differentiable_loss(*scaled, x)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, ELBO().differentiable_loss(*scaled, x))


def test_values_without_gradients():
    vae, x = VAE(**OWN), black_and_white()
    fast, bound = compiled(IWAE(4), backend="graph"), IWAE(4)
    for method in ("loss", "per_datum"):
        for _ in range(2):
            with torch.no_grad():
                torch.manual_seed(0)
                ours = getattr(fast, method)(vae.model, vae.guide, x)
                torch.manual_seed(0)
                torch.testing.assert_close(ours, getattr(bound, method)(vae.model, vae.guide, x))
    assert fast.per_datum(vae.model, vae.guide, x).requires_grad


def test_the_gradient_of_a_value_is_given_once():
    vae = VAE(**OWN)
    loss = compiled(ELBO(), backend="graph")(vae.model, vae.guide)(black_and_white())
    (3 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_gradients_are_scaled_and_added_up():
    vae, x = VAE(**OWN), black_and_white()
    module, plain = compiled(ELBO(), backend="graph")(vae.model, vae.guide), ELBO()(vae.model, vae.guide)
    for seed in (1, 2):
        torch.manual_seed(seed)
        (-2 * module(x)).backward()
    ours = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    for seed in (1, 2):
        torch.manual_seed(seed)
        (-2 * plain(x)).backward()
    torch.testing.assert_close(ours, [parameter.grad for parameter in vae.parameters()])


def test_data_with_gradients():
    flow = FlowModel(shape=(3,), flow=cases.TRANSFORMS["MaskedAutoregressive"])
    fast, x = compiled(ELBO(), backend="graph"), torch.randn(5, 3)
    grads = []
    for bound in (ELBO(), fast, fast):
        leaf = x.clone().requires_grad_()
        bound.differentiable_loss(flow.model, flow.guide, leaf).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1:], [grads[0], grads[0]])


def test_a_compiled_bound_has_what_the_bound_has():
    bound = compiled(IWAE(3, beta=0.5))
    assert (bound.num_particles, float(bound.beta)) == (3, 0.5)
    step = GradientStep(objective(IWAE(3)), torch.optim.Adam(nn.ParameterList([nn.Parameter(torch.zeros(1))])))
    assert float(step.beta) == 1
    with pytest.raises(AttributeError, match="nothing"):
        _ = bound.nothing


@pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoFlow])
def test_automatic_guides(make):
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    x, ends = torch.randn(20), []
    for wrap in (lambda bound: bound, partial(compiled, backend="graph")):
        pyro.clear_param_store()
        torch.manual_seed(0)
        guide = make(model)
        guide(x)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), wrap(ELBO(2)))
        ends.append([svi.step(x) for _ in range(4)])
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)
