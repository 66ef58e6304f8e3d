# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Networks that keep the size of images: what a pixel sees, how they start, and what they refuse."""

import pytest
import torch
from torch import nn

from pyro_dgm.nn import ConvNet, ResidualConvNet
from pyro_dgm.nn.pixel_layout import pixel_layout

KINDS = {"ConvNet": ConvNet, "ResidualConvNet": ResidualConvNet}


def seen_from_the_middle(net):
    """Which pixels of an input the middle pixel of the output depends on, as (height, width) of their rectangle."""
    x = torch.randn(1, *net.in_shape, dtype=torch.float64, requires_grad=True)
    net(x)[..., net.out_shape[1] // 2, net.out_shape[2] // 2].sum().backward()
    rows, columns = (x.grad.abs().sum((0, 1)) > 0).nonzero().unbind(-1)
    return (rows.max() - rows.min() + 1).item(), (columns.max() - columns.min() + 1).item()


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (ConvNet((1, 15, 17), (1, 15, 17), activation=nn.Tanh), 5),
        (ConvNet((1, 15, 17), (1, 15, 17), hidden=(), kernels=(7,)), 7),
        (ResidualConvNet((1, 15, 17), (1, 15, 17), activation=nn.Tanh), 3),
    ],
    ids=["ConvNet", "one layer", "ResidualConvNet"],
)
def test_what_a_pixel_sees(net, size):
    assert seen_from_the_middle(net.double()) == (size, size)


def test_a_residual_block_sees_two_pixels_further():
    net = ResidualConvNet((1, 15, 17), (1, 15, 17), channels=8, activation=nn.Tanh).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert seen_from_the_middle(net) == (11, 11)  # 1 + 1 of the first layer + 4 of each block, in both directions


def test_a_residual_network_is_the_formula():
    net = ResidualConvNet((2, 4, 5), (3, 4, 5), channels=6, blocks=2)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(7, 2, 4, 5)
    weights = list(net.state_dict().values())  # first, two convolutions a block, last; weight and bias each

    def convolve(h, k):
        return torch.conv2d(h, weights[2 * k], weights[2 * k + 1], padding=weights[2 * k].shape[-1] // 2)

    h = convolve(x, 0)
    for b in range(2):
        h = h + convolve(convolve(h.relu(), 1 + 2 * b).relu(), 2 + 2 * b)
    torch.testing.assert_close(net(x), convolve(h.relu(), 5))


@pytest.mark.parametrize("blocks", [1, 30])
def test_depth_is_free_at_the_start(blocks):
    net, x = ResidualConvNet((2, 4, 5), (3, 4, 5), blocks=blocks), torch.randn(7, 2, 4, 5)
    assert torch.equal(net(x), net.last(net.first(pixel_layout(x))))  # another layout may mean another kernel


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("in_shape", "out_shape"), [((2,), (2,)), ((2, 4, 4), (2, 4, 5)), ((2, 4, 4), (2, 5, 4)), ((4, 4), (4, 4))]
)
def test_what_is_no_pair_of_images_is_named(kind, in_shape, out_shape):
    with pytest.raises(ValueError, match=rf"{kind.__name__} got in_shape=.* and out_shape=.*: it maps images to"):
        kind(in_shape, out_shape)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvNet((1, 4, 4), (1, 4, 4), kernels=(3, 2, 3)), r"kernels=\(3, 2, 3\) for 3 layers: .*one odd size"),
        (lambda: ConvNet((1, 4, 4), (1, 4, 4), hidden=(5,)), r"kernels=\(3, 1, 3\) for 2 layers: .*kernels=\(3, 3\)"),
        (lambda: ConvNet((1, 4, 4), (1, 4, 4), hidden=(0, 2)), r"ConvNet got hidden=\(0, 2\)"),
        (lambda: ResidualConvNet((1, 4, 4), (1, 4, 4), channels=0), r"ResidualConvNet got channels=\(0,\)"),
        (lambda: ResidualConvNet((1, 4, 4), (1, 4, 4), blocks=0), r"ResidualConvNet got blocks=\(0,\)"),
    ],
)
def test_other_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
