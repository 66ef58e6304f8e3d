# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""MAF and IAF are the flows of their papers, Pyro's, and each other's inverse."""

from dataclasses import dataclass
from functools import partial

import pyro.distributions.transforms as stock
import pytest
import torch
from pyro.distributions import Normal, TransformedDistribution
from pyro.nn import AutoRegressiveNN
from torch import nn

from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.autoregressive import Autoregressive
from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive
from pyro_dgm.transforms.masked_autoregressive import MaskedAutoregressive

exact = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def make(kind, dim, hidden=(9, 7), activation=nn.Tanh, **options):
    flow = kind(dim, hidden=hidden, activation=activation, **options)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.7 * parameter.shape[-1] ** -0.5)
    return flow.double()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_maf_computes_normal_conditionals(order):
    maf = make(MaskedAutoregressive, 3, order=order)
    flow = TransformedDistribution(Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1), [maf])
    y = torch.randn(10, 3, dtype=torch.float64)
    log_scale, shift = maf.net(y).unbind(-1)
    exact(flow.log_prob(y), Normal(shift, (3 * (log_scale / 3).tanh()).exp()).log_prob(y).sum(-1))


@dataclass(frozen=True)
class Inverted(Elementwise):
    """An elementwise map the other way round."""

    one: Elementwise

    @property
    def size(self):
        return self.one.size

    def forward_and_logdet(self, x, raw):
        return self.one.inverse_and_logdet(x, raw)

    def inverse_and_logdet(self, y, raw):
        return self.one.forward_and_logdet(y, raw)


def test_the_inverse_of_a_maf_is_an_iaf_with_the_same_network():
    maf = make(MaskedAutoregressive, 5, order=[3, 1, 4, 0, 2])
    iaf = Autoregressive(
        5, Inverted(ElementwiseAffine()), hidden=(9, 7), order=[3, 1, 4, 0, 2], activation=nn.Tanh, parallel="forward"
    ).double()
    iaf.load_state_dict(maf.state_dict())
    x = torch.randn(6, 5, dtype=torch.float64)
    for mine, other in ((maf.inv, iaf), (maf, iaf.inv)):
        for got, right in zip(mine.forward_and_logdet(x), other.forward_and_logdet(x), strict=True):
            exact(got, right)


def test_without_scales_maf_and_iaf_are_inverse_when_their_last_layers_are_opposite():
    maf, iaf = make(MaskedAutoregressive, 5, order=range(5)), make(InverseAutoregressive, 5, order=range(5))
    with torch.no_grad():
        for parameter in (maf.net.linear[-1].weight, maf.net.linear[-1].bias):
            parameter[::2] = 0
        iaf.load_state_dict(maf.state_dict())
        for parameter in (iaf.net.linear[-1].weight, iaf.net.linear[-1].bias):
            parameter.neg_()
    x = torch.randn(6, 5, dtype=torch.float64)
    exact(iaf(maf(x)), x)
    exact(maf(iaf(x)), x)


def test_iaf_is_pyros_with_the_same_weights():
    iaf = make(InverseAutoregressive, 4, (8, 6), order=[2, 0, 3, 1], activation=nn.ReLU, bound=1e6)
    net = AutoRegressiveNN(4, [8, 6], permutation=torch.tensor([2, 0, 3, 1])).double()
    shift_then_scale = torch.arange(8).reshape(4, 2).flip(1).t().flatten()
    for ours, theirs in zip(iaf.net.linear, net.layers, strict=True):
        rows = shift_then_scale if ours is iaf.net.linear[-1] else slice(None)
        theirs.weight.data, theirs.bias.data, theirs.mask = (
            ours.weight.data[rows],
            ours.bias.data[rows],
            ours.mask[rows],
        )
    theirs = stock.AffineAutoregressive(net)
    x = torch.randn(5, 4, dtype=torch.float64)
    y = theirs(x)
    exact(iaf(x), y)
    exact(iaf.forward_and_logdet(x)[1], theirs.log_abs_det_jacobian(x, y))


def test_gated_iaf_starts_by_keeping_most_of_x():
    x = torch.randn(5, 3)
    y = InverseAutoregressive(3, gated=True, forget_bias=2.0)(x)
    torch.testing.assert_close(y, x * torch.sigmoid(torch.tensor(2.0)), rtol=0.1, atol=0.1)
