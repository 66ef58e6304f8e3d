# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The perceptrons have the layers that their options name."""

import pytest
import torch
from jaxtyping import TypeCheckError
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


def test_glorot_weights_and_no_biases():
    torch.manual_seed(0)
    net = MLP((300,), (100,), hidden=(200,), start="glorot")
    for layer, bound in ((net.layers[0], (6 / 500) ** 0.5), (net.layers[2], (6 / 300) ** 0.5)):
        assert not layer.bias.any()
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    with pytest.raises((ValueError, TypeCheckError), match="kaiming"):  # types are checked first in tests
        MLP((3,), (2,), start="kaiming")
