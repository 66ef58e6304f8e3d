# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Autoregressive flows are exact in both directions, and the sequential one computes every unit once."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.distributions import ConditionalTransformedDistribution, Normal
from torch import nn
from torch.func import functional_call

from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive
from pyro_dgm.transforms.masked_autoregressive import MaskedAutoregressive

exact = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
KINDS = {
    "MAF": MaskedAutoregressive,
    "IAF": InverseAutoregressive,
    "gated IAF": partial(InverseAutoregressive, gated=True),
}
SHAPES = [(1, (5,)), (2, ()), (3, (2,)), (5, (9, 7)), (40, (30, 50, 20))]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def randomised(flow, scale=0.7):
    """Give a flow random weights, such that what a unit sums up is of order 1."""
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5)
    return flow.double()


def make(kind, dim, hidden=(9, 7), **options):
    options = {"activation": nn.Tanh, "order": torch.randperm(dim).tolist(), **options}
    return randomised(kind(dim, hidden=hidden, **options))


def directions(flow):
    """The parallel and the sequential direction, and the elementwise map of the latter."""
    e = flow.elementwise
    if flow.parallel == "forward":
        return flow._forward_and_logdet, flow._inverse_and_logdet, e.inverse_and_logdet
    return flow._inverse_and_logdet, flow._forward_and_logdet, e.forward_and_logdet


def one_pass_for_each_dimension(flow, w, biases):
    """The sequential direction as its definition has it, differentiable by the loop itself."""
    *_, solve = directions(flow)
    v, logdets = list(torch.zeros_like(w).unbind(-1)), []
    for i in flow.net.order:
        v[i], logdet = solve(w[..., i], flow.net(torch.stack(v, -1), biases)[..., i, :])
        logdets.append(logdet)
    return torch.stack(v, -1), torch.stack(logdets, -1).sum(-1)


@pytest.mark.parametrize("context_dim", [None, 3])
@pytest.mark.parametrize(("dim", "hidden"), SHAPES)
def test_the_sequential_direction_and_its_gradients_are_those_of_the_loop(kind, dim, hidden, context_dim):
    flow = make(kind, dim, hidden, context_dim=context_dim)
    w = torch.randn(2, 3, dim, dtype=torch.float64, requires_grad=True)
    h = None if context_dim is None else torch.randn(3, context_dim, dtype=torch.float64, requires_grad=True)
    _, sequential, _ = directions(flow)
    v, logdet = sequential(w, flow.bind(h))
    expected, expected_logdet = one_pass_for_each_dimension(flow, w, flow.bind(h))
    exact(v, expected)
    exact(logdet, expected_logdet)
    inputs = [w, *flow.parameters(), *([] if h is None else [h])]
    a, b = torch.randn_like(v), torch.randn_like(logdet)
    gradients = partial(torch.autograd.grad, inputs=inputs, allow_unused=True, materialize_grads=True)
    found = gradients((a * v).sum() + (b * logdet).sum())
    for got, right in zip(found, gradients((a * expected).sum() + (b * expected_logdet).sum()), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-8, atol=1e-9)


def test_the_sequential_direction_computes_every_hidden_unit_once(kind):
    class Counted(nn.Tanh):
        total = 0

        def forward(self, x):
            Counted.total += x.numel()
            return super().forward(x)

    flow = make(kind, 40, (100, 50), activation=Counted)
    Counted.total = 0
    directions(flow)[1](torch.randn(6, 40, dtype=torch.float64), flow.bind(None))
    assert Counted.total == 6 * 150


@given(st.permutations(range(4)), st.lists(st.integers(1, 6), max_size=2), st.booleans(), st.sampled_from(list(KINDS)))
def test_both_directions_have_the_logdet_of_autograds_jacobian(order, hidden, has_context, name):
    flow = make(KINDS[name], 4, hidden, order=order, context_dim=2 if has_context else None)
    parameters = flow.bind(torch.randn(2, dtype=torch.float64) if has_context else None)
    x = torch.randn(4, dtype=torch.float64)
    rank = torch.tensor(order).argsort()
    for direction in (flow._forward_and_logdet, flow._inverse_and_logdet):
        jacobian = torch.autograd.functional.jacobian(lambda x, d=direction: d(x, parameters)[0], x)
        exact(torch.linalg.slogdet(jacobian)[1], direction(x, parameters)[1])
        assert (jacobian[rank.unsqueeze(1) < rank] == 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("dim", [1, 2, 30])
def test_each_direction_undoes_the_other(kind, dim, dtype, tolerance):
    flow = make(kind, dim, (40, 40), activation=nn.ReLU).to(dtype)
    x = torch.randn(2, 50, dim, dtype=dtype)
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    for there, back in (
        (flow.forward_and_logdet, flow.inverse_and_logdet),
        (flow.inverse_and_logdet, flow.forward_and_logdet),
    ):
        y, logdet = there(x)
        again, minus = back(y)
        close(again, x)
        torch.testing.assert_close(minus, -logdet, rtol=30 * tolerance, atol=30 * tolerance)


class Sequential(nn.Module):
    """The sequential direction of an amortised flow, as a module whose parameters can be given from outside."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, w, h):
        return directions(self.flow)[1](w, self.flow.bind(h))


def test_gradcheck_of_the_sequential_direction(kind):
    flow = make(kind, 3, (4,), context_dim=2, order=[1, 2, 0])
    names = [f"flow.{name}" for name, _ in flow.named_parameters()]

    def function(w, h, *parameters):
        return functional_call(Sequential(flow), dict(zip(names, parameters, strict=True)), (w, h))

    w, h = torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    inputs = [t.detach().requires_grad_() for t in (w, h, *flow.parameters())]
    torch.autograd.gradcheck(function, inputs)


def test_no_gradient_is_computed_that_is_not_wanted(kind):
    flow = make(kind, 4).requires_grad_(False)
    w = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    v, _ = directions(flow)[1](w, flow.bind(None))
    v.sum().backward()
    assert w.grad.ne(0).all()
    assert all(parameter.grad is None for parameter in flow.parameters())
    assert not directions(flow)[1](w.detach(), flow.bind(None))[0].requires_grad


def test_changed_weights_are_noticed_by_the_gradient(kind):
    flow = make(kind, 4)
    v, _ = directions(flow)[1](torch.randn(5, 4, dtype=torch.float64), flow.bind(None))
    with torch.no_grad():
        flow.net.linear[0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        v.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, on first use of forward mode
def test_functional_transforms_of_torch_go_through_the_sequential_direction(kind):
    flow = make(kind, 4)
    _, sequential, _ = directions(flow)
    x = torch.randn(3, 4, dtype=torch.float64)

    def function(x):
        return sequential(x, flow.bind(None))[0]

    one = torch.autograd.functional.jacobian(function, x[0])
    exact(torch.func.jacrev(function)(x[0]), one)
    exact(torch.func.jacfwd(function)(x[0]), one)
    exact(torch.func.vmap(torch.func.jacrev(function))(x)[0], one)
    exact(torch.autograd.functional.jacobian(function, x[0], vectorize=True), one)
    hessian = torch.func.hessian(lambda x: sequential(x, flow.bind(None))[1])(x[0])
    exact(hessian, hessian.mT)


def test_contexts_are_one_for_each_datum_under_any_number_of_particles(kind):
    flow = make(kind, 3, context_dim=2)
    h, x = torch.randn(5, 2, dtype=torch.float64), torch.randn(7, 5, 3, dtype=torch.float64)
    conditioned = flow.condition(h)
    y, logdet = conditioned.forward_and_logdet(x)
    alone, alone_logdet = flow.condition(h[3]).forward_and_logdet(x[:, 3])
    exact(y[:, 3], alone)
    exact(logdet[:, 3], alone_logdet)
    exact(conditioned.inverse_and_logdet(y)[0], x)


def test_leading_dimensions_may_be_missing_or_empty(kind):
    flow = make(kind, 3)
    for batch in [(), (0,), (2, 0)]:
        x = torch.randn(*batch, 3, dtype=torch.float64, requires_grad=True)
        y, logdet = directions(flow)[1](x, flow.bind(None))
        (y.sum() + logdet.sum()).backward()
        assert (y.shape, logdet.shape, x.grad.shape) == (x.shape, batch, x.shape)


def test_an_amortised_flow_is_a_posterior_that_scores_what_it_sampled(kind):
    flow = make(kind, 3, context_dim=2)
    h = torch.randn(5, 2, dtype=torch.float64)
    base = Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
    posterior = ConditionalTransformedDistribution(base, [flow]).condition(h)
    z = posterior.rsample((4,))
    remembered = posterior.log_prob(z)
    assert remembered.shape == (4, 5)
    exact(posterior.log_prob(z.clone()), remembered)


def test_both_directions_work_on_meta(kind):
    flow, x = kind(3, order=[2, 0, 1], context_dim=2).to("meta"), torch.empty(4, 5, 3, device="meta")
    conditioned = flow.condition(torch.empty(5, 2, device="meta"))
    for direction in (conditioned.forward_and_logdet, conditioned.inverse_and_logdet):
        y, logdet = direction(x)
        assert (y.shape, logdet.shape, y.device.type) == ((4, 5, 3), (4, 5), "meta")


def test_bad_options_are_named(kind):
    for options, message in [
        ({"order": [0, 0, 1]}, r"MADE\(dim=3\) got order=\[0, 0, 1\]"),
        ({"hidden": (4, -1)}, r"got hidden=\(4, -1\)"),
        ({"activation": nn.PReLU}, "activation=PReLU"),
        ({"context_dim": 0}, r"got context_dim=\(0,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind(3, **options)
    with pytest.raises(ValueError, match="bound=-1"):
        InverseAutoregressive(3, bound=-1)
    with pytest.raises(ValueError, match="must be 3"):
        kind(3)(torch.randn(5, 4))
