# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Reversible flows: the gradient of a chain of invertible maps needs no activation but the last output."""

from functools import partial

import pytest
import torch
from torch import nn

from pyro_dgm.nn import MLP, ConvNet
from pyro_dgm.transforms import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Compose,
    Invert,
    InvertibleConv1x1,
    LULinear,
    Reversible,
    SplineCoupling,
    Squeeze,
)
from tests.transforms.random_flows import randomise

VECTOR, IMAGE = 4, (2, 4, 4)


def chain(coupling, shape, context_dim, depth):
    """Couplings with an invertible matrix and an ActNorm after each, and a Squeeze in front of images."""
    first, net = [], partial(MLP, hidden=(8,), activation=nn.Tanh)
    if shape == IMAGE:
        first, shape, net = (
            [Squeeze(shape)],
            (8, 2, 2),
            partial(ConvNet, hidden=(6,), kernels=(3, 1), activation=nn.Tanh),
        )
    matrix = LULinear if isinstance(shape, int) else InvertibleConv1x1
    for _ in range(depth):
        first.append(coupling(shape, net=net, context_dim=context_dim))
        first.append(Invert(Compose([matrix(shape), ActNorm(shape, context_dim=context_dim)])))
    return randomise(Compose(first), 0.2).eval()


def gradients(flow, context, x, inverse):
    """Of a weighted sum over data, other weights for each: of x, the context and all parameters."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    context = None if context is None else context.clone().requires_grad_()
    bound = flow if context is None else flow.condition(context)
    value, logdet = (bound.inverse_and_logdet if inverse else bound.forward_and_logdet)(x)
    weights, more = torch.randn_like(value), torch.randn_like(logdet)
    wanted = [x, *([] if context is None else [context]), *flow.parameters()]
    return value, logdet, torch.autograd.grad((value * weights).sum() + (logdet * more).sum(), wanted)


@pytest.mark.parametrize("inverse", [False, True], ids=["sampling", "scoring"])
@pytest.mark.parametrize("context_dim", [None, 3], ids=["learned", "amortised"])
@pytest.mark.parametrize("shape", [VECTOR, IMAGE], ids=["vectors", "images"])
@pytest.mark.parametrize("coupling", [AdditiveCoupling, AffineCoupling, SplineCoupling])
def test_the_gradient_of_a_chain_follows_from_its_output_alone(coupling, shape, context_dim, inverse, device):
    """The gradient of a chain of invertible maps is a function of its output and of the upstream gradients.

    With y = f_K(... f_1(x)), each x_{k-1} is f_k^{-1}(x_k): no other activation is needed for the gradients of x, of
    the context and of all parameters, whatever weight each datum has.
    """
    flow = chain(coupling, shape, context_dim, depth=3)
    context = None if context_dim is None else torch.randn(3, context_dim).double().to(device)
    x = torch.randn(2, 3, *((shape,) if isinstance(shape, int) else shape)).double()
    if inverse:
        x = x.reshape(2, 3, *flow.out_shape)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        plain = flow.to(device, dtype)
        to = {"device": device, "dtype": dtype}
        given = (None if context is None else context.to(**to), x.to(**to), inverse)
        value, logdet, expected = gradients(plain, *given)
        same_value, same_logdet, found = gradients(Reversible(plain.parts), *given)
        assert torch.equal(same_value, value)
        torch.testing.assert_close(same_logdet, logdet, rtol=1e-6, atol=1e-5)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() <= tolerance * other.norm()


def test_rounding_does_not_add_up_over_64_trained_steps():
    """In float32, inputs found again from outputs give the gradients that kept ones give, to 1e-4, after training.

    Where the nets are smooth: a ReLU whose input is zero up to rounding has either of two slopes.
    """
    shape, depth = (4, 4, 4), 64
    coupling = partial(AffineCoupling, net=partial(ConvNet, hidden=(8, 8), activation=nn.SiLU))
    steps = [make(shape) for _ in range(depth) for make in (coupling, InvertibleConv1x1, ActNorm)]
    flow, plain = Reversible(steps), Compose(steps)
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-3)
    start = [parameter.detach().clone() for parameter in flow.parameters()]

    def loss(flow):
        torch.manual_seed(2)
        data = torch.rand(8, *shape).square().logit(eps=0.05)
        x, logdet = flow.inverse_and_logdet(data)
        return (x.square().sum((-3, -2, -1)) / 2 - logdet).mean()

    for _ in range(4):
        optimiser.zero_grad()
        loss(flow).backward()
        optimiser.step()
    moved = [(new - old).abs().mean() for new, old in zip(flow.parameters(), start, strict=True)]
    assert sum(moved) / len(moved) > 1e-3  # also the nets, which start with zeros
    found = torch.autograd.grad(loss(flow), list(flow.parameters()))
    expected = torch.autograd.grad(loss(plain), list(flow.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
