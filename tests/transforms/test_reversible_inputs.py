# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A reversible stack finds inputs from outputs; where random numbers or saturation stand in the way, it keeps them."""

from functools import partial

import pyro
import pytest
import torch
from torch import nn

from pyro_dgm.nn import MLP, ConvNet
from pyro_dgm.transforms import ActNorm, AffineCoupling, Compose, FlowTransform, Invert, Logit, Permute, Reversible
from tests.transforms.random_flows import randomise
from tests.transforms.reversible_flows import SMALL, close, data, gradients


class Dropping(nn.Module):
    """Dropout as a function, which no module shows."""

    def __init__(self, *shapes):
        super().__init__()
        self.net = SMALL(*shapes)
        self.out_shape = self.net.out_shape

    def forward(self, x):
        return self.net(nn.functional.dropout(x, training=True))


@pytest.mark.parametrize("net", [Dropping, lambda *n: nn.Sequential(nn.Dropout(0.3), SMALL(*n)), "later"])
@pytest.mark.parametrize("inverse", [False, True])
def test_random_numbers_are_drawn_again(net, inverse, device):
    steps = [f for k in range(3) for f in (AffineCoupling(4, swap=k % 2 > 0, net=SMALL), ActNorm(4))]
    if net != "later":
        steps[2] = AffineCoupling(4, net=net)
    flow = randomise(Reversible(steps), 0.5).double().to(device).train()
    if net == "later":
        steps[2].net.layers.insert(1, nn.Dropout(0.5))
    flow.forward_and_logdet(data(5).to(device))  # the ActNorms begin
    x, results, after = data(50).to(device), [], []
    for one in (Compose(steps), flow):
        torch.manual_seed(3)
        value, logdet = (one.inverse_and_logdet if inverse else one.forward_and_logdet)(x)
        torch.rand(7)
        results.append(gradients(one, value.square().sum() - 2 * logdet.sum()))
        after.append(torch.rand(()).item())
    close(*results)
    assert after[0] == after[1]  # nobody else notices


class Shaken(Permute):
    """Adds noise: its inverse, which draws other numbers, does not undo it."""

    def _forward_and_logdet(self, x, parameters):
        y, logdet = super()._forward_and_logdet(x, parameters)
        return y + torch.randn_like(y), logdet


def test_a_flow_that_draws_and_is_no_coupling_keeps_its_input():
    steps = [AffineCoupling(4, net=SMALL), Shaken([1, 3, 0, 2]), AffineCoupling(4, net=SMALL, swap=True)]
    plain, results = randomise(Compose(steps), 0.5).double(), []
    x = data(20).requires_grad_()
    for one in (plain, Reversible(steps)):
        torch.manual_seed(0)
        y, logdet = one.forward_and_logdet(x)
        results.append(torch.autograd.grad(y.square().sum() + logdet.sum(), [x, *one.parameters()]))
    close(*results)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_the_input_of_a_saturating_flow_is_kept(inverse, nested):
    """Beyond its margin Logit gives 0, and what it gets back beyond 16 it takes for 16."""
    shape = (2, 2, 2)
    net = partial(ConvNet, hidden=(4,), kernels=(3, 1), activation=nn.Tanh)
    steps = [AffineCoupling(shape, net=net), AffineCoupling(shape, swap=True, net=net), _Levels(shape)]
    if not nested:
        steps[2] = steps[2].flow
    plain = randomise(Compose(steps), 0.3)
    x = (8.5 * inverse + 12 * torch.randn(30, *shape)).requires_grad_()
    results = []
    for one in (plain, Reversible(steps)):
        value, logdet = (one.inverse_and_logdet if inverse else one.forward_and_logdet)(x)
        finite = torch.where(logdet.isfinite(), logdet, 0)
        results.append(torch.autograd.grad(value.square().sum() + finite.sum(), [x, *one.parameters()]))
    for found, expected in zip(*results[::-1], strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


class _Levels(FlowTransform):
    """A flow that holds one that saturates."""

    def __init__(self, shape):
        super().__init__(shape)
        self.flow = Invert(Logit(shape, levels=17))
        self.bind = self.flow.bind
        self._forward_and_logdet = self.flow._forward_and_logdet
        self._inverse_and_logdet = self.flow._inverse_and_logdet

    def bind(self, context):
        raise NotImplementedError

    _forward_and_logdet = _inverse_and_logdet = bind


def test_a_gradient_at_another_input_is_an_error():
    """Scales of e^-12 leave nothing of 24 bits: what is found on the way back is not what came in."""
    flows = [AffineCoupling(2, swap=swap, bound=12.0, net=partial(MLP, hidden=())) for swap in (False, True)] * 2
    with torch.no_grad():
        for flow in flows[:2]:
            flow.net.layers[-1].bias.copy_(torch.tensor([-60.0, 1e4]))
    x = torch.randn(5, 2, requires_grad=True)
    y, logdet = Reversible(flows).forward_and_logdet(x)
    with pytest.raises(ValueError, match="found its input again only up to .* of its largest number.*Compose"):
        (y.sum() + logdet.sum()).backward()
    with pyro.validation_enabled(is_validate=False):
        y, logdet = Reversible(flows).forward_and_logdet(x)
        (y.sum() + logdet.sum()).backward()  # nothing is read from the device
