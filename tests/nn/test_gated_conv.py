# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The convolutional nets are those of the Sylvester flow paper, at its sizes and at others."""

import pytest
import torch
from torch import nn

from pyro_dgm.nn import GatedConvDecoder, GatedConvEncoder


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def recipe(net):
    """What every layer does: channels in and out (without the gate), kernel, stride, padding and output padding."""
    rows = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            gated = any(layer is getattr(parent, "value_and_gate", None) for parent in net.modules())
            out = layer.out_channels // 2 if gated else layer.out_channels
            rows.append(
                (layer.in_channels, out, layer.kernel_size, layer.stride[0], layer.padding[0], layer.output_padding)
            )
    return rows


NONE = (0, 0)


@pytest.mark.parametrize(("shape", "left"), [((28, 28), (7, 7)), ((28, 20), (7, 5))], ids=str)
def test_encoder_has_the_layers_of_the_paper(shape, left):
    net = GatedConvEncoder(shape, (128,))
    assert recipe(net) == [
        (1, 32, (5, 5), 1, 2, NONE),
        (32, 32, (5, 5), 2, 2, NONE),
        (32, 64, (5, 5), 1, 2, NONE),
        (64, 64, (5, 5), 2, 2, NONE),
        (64, 64, (5, 5), 1, 2, NONE),
        (64, 256, left, 1, 0, NONE),
    ]
    assert (net.layers[-1].in_features, net.layers[-1].out_features) == (256, 128)


@pytest.mark.parametrize(("shape", "left"), [((28, 28), (7, 7)), ((28, 20), (7, 5))], ids=str)
@pytest.mark.parametrize("levels", [1, 256])
def test_decoder_has_the_layers_of_the_paper(shape, left, levels):
    head = {1: [(32, 1, (1, 1), 1, 0, NONE)], 256: [(32, 256, (5, 5), 1, 2, NONE), (256, 256, (1, 1), 1, 0, NONE)]}
    assert recipe(GatedConvDecoder((64,), (levels, *shape))) == [
        (64, 64, left, 1, 0, NONE),
        (64, 64, (5, 5), 1, 2, NONE),
        (64, 32, (5, 5), 2, 2, (1, 1)),
        (32, 32, (5, 5), 1, 2, NONE),
        (32, 32, (5, 5), 2, 2, (1, 1)),
        (32, 32, (5, 5), 1, 2, NONE),
        *head[levels],
    ]


def test_nets_have_as_many_parameters_as_the_papers():
    """3.07 million for MNIST with 64 latent dimensions and no flow."""
    assert count(GatedConvEncoder((28, 28), (2 * 64,)), GatedConvDecoder((64,), (1, 28, 28))) == 3_067_105


@pytest.mark.parametrize("size", range(1, 13))
def test_the_decoder_makes_images_of_any_size(size):
    for other in (size, 13 - size):
        assert GatedConvDecoder((3,), (2, 1, size, other), width=1)(torch.rand(2, 3)).shape == (2, 2, 1, size, other)
        assert GatedConvEncoder((size, other), (3,), width=1)(torch.rand(2, size, other)).shape == (2, 3)


def test_grey_images_may_or_may_not_name_their_channel():
    plain, named = GatedConvEncoder((8, 8), (3,), width=2), GatedConvEncoder((1, 8, 8), (3,), width=2)
    named.load_state_dict(plain.state_dict())
    x = torch.rand(4, 8, 8)
    assert torch.equal(plain(x), named(x.unsqueeze(1)))


@pytest.mark.parametrize("shape", [(784,), (1, 3, 28, 28)], ids=str)
def test_the_encoder_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match=r"GatedConvEncoder got in_shape=.*\(H, W\) or \(C, H, W\).*MLP"):
        GatedConvEncoder(shape, (3,))


@pytest.mark.parametrize("shape", [(784,), (28, 28), (1, 1, 3, 28, 28)], ids=str)
def test_the_decoder_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match=r"GatedConvDecoder got out_shape=.*\(P, H, W\) or \(P, C, H, W\).*MLP"):
        GatedConvDecoder((3,), shape)


def test_without_features_the_linear_layer_is_the_last_convolution():
    """Gated by who reads it, it gives what the encoder's last gated layer does: recipes rely on it."""
    torch.manual_seed(0)
    whole = GatedConvEncoder((12, 8), (6,), features=5, width=2)
    cut = GatedConvEncoder((12, 8), (10,), features=None, width=2)
    cut.layers[:5].load_state_dict(whole.layers[:5].state_dict())
    last = whole.layers[5].value_and_gate
    with torch.no_grad():
        cut.layers[-1].weight.copy_(last.weight.flatten(1))
        cut.layers[-1].bias.copy_(last.bias)
    x = torch.rand(3, 12, 8)
    torch.testing.assert_close(torch.nn.functional.glu(cut(x)), whole.layers[:7](x.unsqueeze(1)))
