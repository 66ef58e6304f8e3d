# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A reversible stack is a Compose in all but its memory, and says so where it cannot be one."""

import copy
import pickle
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn

from benchmarks.live_bytes import LiveBytes
from pyro_dgm.nn import MLP, ConvNet
from pyro_dgm.transforms import (
    ActNorm,
    AffineCoupling,
    BatchNorm,
    Compose,
    Invert,
    InvertibleConv1x1,
    LULinear,
    Permute,
    Reversible,
    Squeeze,
)
from tests.transforms.random_flows import randomise
from tests.transforms.reversible_flows import SMALL, both, close, data, flows, gradients, loss

# Memory and cost.


def image_steps(depth, shape=(4, 4, 4)):
    net = partial(ConvNet, hidden=(8, 8))
    return [f for _ in range(depth) for f in (AffineCoupling(shape, net=net), InvertibleConv1x1(shape), ActNorm(shape))]


def activations(kind, depth):
    """Bytes alive at the peak of a gradient, less the gradients themselves; and after the pass alone."""
    flow, images = kind(image_steps(depth)), torch.randn(64, 4, 4, 4)
    with torch.no_grad():
        flow.inverse_and_logdet(images)
    with LiveBytes() as live:
        x, logdet = flow.inverse_and_logdet(images)
        between = live.now
        (x.square().sum() - logdet.sum()).backward()
    return live.peak - sum(parameter.grad.nbytes for parameter in flow.parameters()), between


def test_memory_does_not_grow_with_depth():
    (few, _), (many, kept) = (activations(Reversible, depth) for depth in (8, 64))
    ordinary, _ = activations(Compose, 64)
    assert many <= 1.3 * few
    assert many <= ordinary / 10
    assert kept <= ordinary / 30


def test_a_net_runs_once_in_the_pass_and_once_on_the_way_back():
    _, flow = both(depth=3)
    calls = []
    for part in flow.parts[::3]:
        part.net.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    loss(flow, data(5)).backward()
    assert calls == 3 * [False] + 3 * [True]


# As a Compose.


def test_nested_stacks_are_taken_apart_and_keep_their_names():
    parts = flows(depth=4).parts
    nested = [parts[0], Invert(Compose([*parts[1:4], Invert(Reversible(parts[4:6]))])), Compose(parts[6:])]
    plain, flow = Compose(nested).eval(), Reversible(nested).eval()
    assert list(flow.state_dict()) == list(plain.state_dict())
    close(gradients(flow, loss(flow, y := data(5))), gradients(plain, loss(plain, y)))
    calls = []
    parts[2].register_forward_hook(lambda *_: calls.append(1))
    parts[3].net.register_forward_hook(lambda *_: calls.append(2))
    loss(flow, y).backward()
    assert calls == [2, 2]


def test_state_copies_and_pickles():
    plain, flow = both()
    other = Reversible(flows().parts).eval()
    other.load_state_dict(plain.state_dict())
    loss(flow, y := data(5)).backward()
    for same in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), flow.with_cache(0)):
        assert isinstance(same, Reversible)
        close(gradients(same, loss(same, y)), gradients(plain, loss(plain, y)))


def test_the_first_batch_initialises_as_in_a_compose():
    plain = flows().train()
    flow = Reversible(copy.deepcopy(plain.parts))
    y = 3 + 5 * data(50)
    results = [gradients(f, loss(f, y)) for f in (plain, flow)]
    assert all(part.initialized for part in flow.parts[2::3])
    close(list(flow.state_dict().values()), list(plain.state_dict().values()))
    close(*results)


def test_a_flow_may_stand_in_several_places():
    part, shared = AffineCoupling(4, net=SMALL), LULinear(4)
    nested = [part, shared, Permute.reverse(4), part, Invert(shared), shared]
    plain = randomise(Compose(nested), 0.3).double()
    flow = Reversible(nested)
    close(gradients(flow, loss(flow, y := data(5))), gradients(plain, loss(plain, y)))


@pytest.mark.parametrize("what", ["nothing", "x", "context", "one parameter"])
def test_only_what_wants_a_gradient_gets_one(what):
    plain, flow = both(context_dim=2)
    for parameter in flow.parameters():
        parameter.requires_grad_(False)
    x, h = data(5), torch.randn(5, 2, dtype=torch.float64)
    wanted = {"x": x, "context": h, "one parameter": flow.flows[0].net.layers[0].bias, "nothing": None}[what]
    if wanted is not None:
        wanted.requires_grad_()
    results = [loss(f.condition(h), x) for f in (plain, flow)]
    assert [result.requires_grad for result in results] == 2 * [wanted is not None]
    if wanted is not None:
        close(*(torch.autograd.grad(result, wanted) for result in results))


@pytest.mark.parametrize("which", [0, 1])
def test_either_result_alone_has_a_gradient(which):
    plain, flow = both()
    x = data(5)
    for gradient in zip(*(gradients(f, f.forward_and_logdet(x)[which].sum()) for f in (flow, plain)), strict=True):
        close(*(torch.zeros(1) if part is None or not part.any() else part for part in gradient))


def test_a_flow_without_parameters():
    flow = Reversible([Permute([1, 0])])
    x = torch.randn(3, 2, requires_grad=True)
    y, logdet = flow.forward_and_logdet(x)
    (2 * y).sum().backward()
    assert torch.equal(x.grad, torch.full((3, 2), 2.0))
    assert torch.equal(logdet, torch.zeros(3))


def test_images_change_their_shape():
    steps = [Squeeze((1, 4, 4)), *image_steps(2, (4, 2, 2))]
    plain = randomise(Compose(steps), 0.3).double().eval()
    results = []
    for flow in (plain, Reversible(steps)):
        x = torch.ones(2, 3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        y, logdet = flow.forward_and_logdet(x)
        assert (y.shape, logdet.shape) == ((2, 3, 4, 2, 2), (2, 3))
        results.append(torch.autograd.grad((y.square().sum() + logdet.sum()), x))
    close(*results)


# What would not do the same again.


class _Bayesian(PyroModule[nn.Linear]):
    def __init__(self, n, m):
        super().__init__(n[0], m[0] * m[1])
        self.weight = PyroSample(dist.Normal(0, 1).expand([m[0] * m[1], n[0]]).to_event(2))


def _with(layer):
    return lambda seen, raw: nn.Sequential(MLP(seen, raw), layer)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: BatchNorm(4), "BatchNorm, which normalises data by their batch"),
        (lambda: Compose([BatchNorm(4)]), "BatchNorm, which"),
        (lambda: AffineCoupling(4, net=_with(nn.BatchNorm1d(2))), "BatchNorm1d, which normalises"),
        (lambda: AffineCoupling(4, net=_with(nn.GRU(2, 2, 2, dropout=0.5))), "GRU, which draws anew"),
        (lambda: AffineCoupling(4, net=_Bayesian), "has weights that are drawn anew"),
        (
            lambda: AffineCoupling(4, net=_with(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)))),
            "changes its estimate",
        ),
        (lambda: AffineCoupling(4, net=_with(nn.utils.spectral_norm(nn.Linear(2, 2)))), "Linear, which changes its"),
    ],
)
def test_what_changes_from_call_to_call_is_refused(make, why):
    with pytest.raises(ValueError, match=rf"flows\[1\] holds a .*{why}"):
        Reversible([Permute.reverse(4), make()])


def test_what_is_put_in_later_is_found_at_the_next_call():
    _, flow = both()
    flow.parts[0].net.layers.append(nn.utils.spectral_norm(nn.Linear(4, 4)).double())
    with pytest.raises(ValueError, match="Reversible holds a Linear in AffineCoupling, which changes its estimate"):
        flow.forward_and_logdet(data(5))


def test_layers_that_repeat_themselves_are_let_in():
    for layer in (nn.GRU(2, 2), nn.LayerNorm(2), nn.InstanceNorm1d(2), nn.MultiheadAttention(2, 1)):
        Reversible([AffineCoupling(4, net=_with(layer))])


def test_it_needs_flows():
    with pytest.raises(ValueError, match="Reversible got nothing"):
        Reversible([])
