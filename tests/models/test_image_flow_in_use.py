# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An image flow starts from data only, leaves nothing behind, and runs every network once in a step."""

import copy
import gc
from collections import Counter
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.inspect import get_model_relations
from torch import nn

from pyro_dgm.distributions import UniformDequantizer, VariationalDequantizer
from pyro_dgm.infer import ELBO, IWAE
from pyro_dgm.models import ImageFlow
from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms import ActNorm, Glow

NET = partial(ConvNet, hidden=(6,), kernels=(3, 3), activation=nn.Tanh)
SMALL_DEQUANTIZER = partial(VariationalDequantizer, context=3, depth=2, encoder=NET)


def small(*, shape=(8, 8), dequantizer=UniformDequantizer, net=NET, **options):
    return ImageFlow(
        shape=shape, levels=17, flow=partial(Glow, scales=2, depth=2, net=net, **options), dequantizer=dequantizer
    )


def images(number=20, shape=(8, 8)):
    return torch.randint(17, (number, *shape), dtype=torch.uint8)


def norms(model):
    return [module for module in model.modules() if isinstance(module, ActNorm)]


def started(model):
    return {bool(norm.initialized) for norm in norms(model)}


# Starting.


def dream_with_gradients(model):
    model.distribution().rsample((3,)).sum().backward()
    model.zero_grad()


WITHOUT_DATA = {
    "dream": lambda model: model.model(size=3),
    "Predictive": lambda model: Predictive(model.model, num_samples=4, parallel=True)(size=3),
    "dream at a temperature": lambda model: model.at_temperature(0.7).model(size=3),
    "dream with gradients": dream_with_gradients,
    "score dreams": lambda model: model.distribution().log_prob(model.distribution().sample((3,))),
    "decode": lambda model: model.decode(torch.randn(3, 64)),
    "encode": lambda model: model.encode(images(3)),
    "relations": lambda model: get_model_relations(model.model, model_kwargs={"size": 3}),
}


@pytest.mark.parametrize("reversible", [False, True])
@pytest.mark.parametrize("use", WITHOUT_DATA)
def test_only_data_start_it(use, reversible):
    model, x = small(reversible=reversible), images()
    clean = copy.deepcopy(model)
    WITHOUT_DATA[use](model)
    assert started(model) == {False}
    for each in (model, clean):
        torch.manual_seed(0)
        ELBO().per_datum(each.model, each.guide, x)
        assert started(each) == {True}
    for name, value in clean.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


SCORED = {
    "without a guide": lambda model, x: poutine.trace(model.model).get_trace(x).compute_log_prob(),
    "relations": lambda model, x: get_model_relations(model.model, (x,)),
    "at a temperature": lambda model, x: model.at_temperature(0.5).model(x),
    "in a step": lambda model, x: SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO()).step(x),
}


@pytest.mark.parametrize("use", SCORED)
def test_data_start_it_even_where_v_is_drawn_anew(use):
    """Every ActNorm then gives mean 0 and variance 1 to data, not to what the flow draws."""
    model, x = small(), (images(300) // 8) ** 2
    SCORED[use](model, x)
    assert started(model) == {True}
    seen = []
    for norm in norms(model):
        norm._inverse_and_logdet = _watched(norm._inverse_and_logdet, seen)
    model.distribution().log_prob(model.guide(x).detach())
    assert len(seen) == len(norms(model))
    assert max(mean.abs().max() for mean, _ in seen) < 0.2
    assert max((deviation - 1).abs().max() for _, deviation in seen) < 0.2


def _watched(function, seen):
    def watch(y, parameters):
        x, logdet = function(y, parameters)
        pixels = x.detach().movedim(-3, -1).flatten(0, -2)
        seen.append((pixels.mean(0), pixels.std(0)))
        return x, logdet

    return watch


def test_it_starts_once_and_again_after_loading():
    model, x = small(), images()
    empty = copy.deepcopy(model.state_dict())
    model.eval().model(x)
    assert started(model) == {False}
    model.train().model(x)
    first = copy.deepcopy(model.state_dict())
    model.model(images())
    torch.testing.assert_close(model.state_dict(), first)
    other = small()
    other.load_state_dict(first)
    other.model(images())
    torch.testing.assert_close(other.state_dict(), first)
    model.load_state_dict(empty)
    model.model(size=2)
    assert started(model) == {False}
    model.model(x)
    assert started(model) == {True}


# Nothing stays.


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def draw_and_score(model, x):
    q = model.dequantizer(x)
    v = q.rsample()
    (model.distribution().log_prob(v) - q.log_prob(v)).sum().backward()
    model.distribution().rsample((3,))


def step(model, x):
    ELBO().loss_and_grads(model.model, model.guide, x)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", [draw_and_score, step])
@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8)])
@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_no_tensor_waits_for_the_collector(use, shape, dequantizer):
    model, x = small(shape=shape, dequantizer=dequantizer), images(shape=shape)
    counts = []
    for _ in range(4):
        use(model, x)
        counts.append(
            sum(issubclass(type(thing), torch.Tensor) and thing.numel() >= x.numel() for thing in gc.get_objects())
        )
    assert counts[1:] == [counts[1]] * 3, counts


# Economy.


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_a_step_runs_every_network_once(dequantizer):
    calls = Counter()

    class Counting(ConvNet):
        def body(self, x):
            calls[id(self)] += 1
            return super().body(x)

    model = small(dequantizer=dequantizer, net=partial(Counting, hidden=(6,), kernels=(3, 3)))
    x, svi = images(), SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), ELBO())
    svi.step(x)
    for _ in range(2):
        calls.clear()
        svi.step(x)
        assert len(calls) == 4  # two scales of two couplings
        assert set(calls.values()) == {1}


def test_parameters_stay_out_of_the_plate():
    """Pyro has a message for every parameter; in a plate each of them would be handled by the plate, too."""
    model, x = small(dequantizer=SMALL_DEQUANTIZER), images()
    for program in (model.model, model.guide):
        trace = poutine.trace(program).get_trace(x)
        stacks = [site["cond_indep_stack"] for site in trace.nodes.values() if site["type"] == "param"]
        assert len(stacks) > 5
        assert set(stacks) == {()}


# Particles, mixed precision, the meta device.


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_particles_in_a_plate_and_one_by_one(dequantizer):
    model, x = small(dequantizer=dequantizer), images()
    model.model(x)
    model.eval()
    values = {}
    for vectorised in (False, True):
        bound = Trace_ELBO(num_particles=20, vectorize_particles=vectorised, max_plate_nesting=1)
        values[vectorised] = torch.stack([torch.as_tensor(bound.loss(model.model, model.guide, x)) for _ in range(4)])
    spread = torch.stack([*values.values()]).std(1).square().mean().sqrt()
    assert (values[True].mean() - values[False].mean()).abs() < 5 * spread
    found = IWAE(4).per_datum(model.model, model.guide, x)
    assert found.shape == (20,)
    assert found.isfinite().all()


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_mixed_precision_changes_no_digit_of_the_density(dequantizer):
    model, x = small(dequantizer=dequantizer), images()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.model(x)
        v = model.guide(x).detach()
        mixed = model.distribution().log_prob(v)
        ELBO().loss_and_grads(model.model, model.guide, x)
        assert model.model(size=2).dtype == torch.int64
    assert started(model) == {True}
    assert v.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, model.distribution().log_prob(v), atol=1e-2, rtol=1e-4)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_it_can_be_made_without_memory_and_filled_later(dequantizer):
    model, x = small(dequantizer=dequantizer), images()
    model.model(x)
    with torch.device("meta"):
        other = small(dequantizer=dequantizer)
    other.to_empty(device="cpu").load_state_dict(model.state_dict())
    v = model.guide(x).detach()
    torch.testing.assert_close(other.distribution().log_prob(v), model.distribution().log_prob(v))
    torch.testing.assert_close(other.dequantizer(x).log_prob(v), model.dequantizer(x).log_prob(v))
    torch.testing.assert_close(other.encode(v), model.encode(v))
