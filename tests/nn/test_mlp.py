# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The perceptrons have the layers that their options name."""

import pytest
import torch
from torch import nn

from pyro_dgm.nn import MLP, GatedLinear, GatedMLP


def kinds(net):
    return [type(layer) for layer in net.layers]


def test_mlp_alternates_linear_layers_and_activations():
    net = MLP((4, 7), (3,), hidden=(5, 6), activation=nn.Tanh)
    assert kinds(net) == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [layer.in_features for layer in net.layers[::2]] == [28, 5, 6]


def test_gated_mlp_ends_in_a_linear_layer():
    net = GatedMLP((4, 7), (3, 2), hidden=(5, 6))
    assert kinds(net) == [GatedLinear, GatedLinear, nn.Linear]
    assert net.layers[-1].out_features == 6


@pytest.mark.parametrize("net", [MLP, GatedMLP])
def test_without_hidden_layers_the_net_is_affine(net):
    affine = net((3,), (2,), hidden=()).double()
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(affine(0.3 * x + 0.7 * y), 0.3 * affine(x) + 0.7 * affine(y))


@pytest.mark.parametrize("net", [MLP, GatedMLP])
def test_hidden_widths_must_be_positive(net):
    with pytest.raises(ValueError, match=rf"{net.__name__} got hidden=\(5, 0\)"):
        net((3,), (2,), hidden=[5, 0])
