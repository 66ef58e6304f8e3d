# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every net and every layer promises."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.cases import LAYERS, NETS

DTYPES = [torch.float32, torch.float64]
LEADING = [(), (3,), (2, 3), (0,), (2, 0, 3)]


def net_and_data(name, batch, device="cpu", dtype=torch.float32):
    net = NETS[name]().to(device, dtype)
    return net, torch.randn(*batch, *net.in_shape, device=device, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", LEADING, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_any_leading_dimensions(name, batch, dtype, device):
    net, x = net_and_data(name, batch, device, dtype)
    y = net(x)
    assert y.shape == (*batch, *net.out_shape)
    assert (y.dtype, y.device) == (x.dtype, x.device)


@pytest.mark.parametrize("name", NETS)
def test_rows_are_independent_of_each_other_and_of_the_layout(name, device):
    net, x = net_and_data(name, (2, 3), device, torch.float64)
    one_by_one = torch.stack([net(row) for row in x.flatten(0, 1)]).unflatten(0, (2, 3))
    torch.testing.assert_close(net(x), one_by_one)
    x_strided = x.transpose(0, 1)
    torch.testing.assert_close(net(x_strided), one_by_one.transpose(0, 1))


@pytest.mark.parametrize("name", NETS)
def test_gradient_reaches_every_parameter_and_the_input(name, device):
    net, x = net_and_data(name, (3,), device)
    with torch.no_grad():  # layers that start as zeros let nothing through to those in front
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    net(x.requires_grad_()).square().sum().backward()
    for key, parameter in [*net.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NETS)
def test_input_of_another_shape_or_of_integers_is_refused(name):
    net, x = net_and_data(name, (3,))
    who = type(net).__name__
    with pytest.raises(ValueError, match=rf"{who}.* got x of shape .*must be \({net.in_shape[0]},"):
        net(x[..., :-1])
    with pytest.raises(ValueError, match=rf"{who}.* got x of shape"):
        net(torch.tensor(1.0))
    with pytest.raises(ValueError, match=f"{who} got x of dtype torch.uint8.*Scale"):
        net(x.byte())


@pytest.mark.parametrize("name", NETS)
def test_copies_are_equal_and_independent(name):
    net, x = net_and_data(name, (3,))
    y = net(x)
    other = NETS[name]()
    other.load_state_dict(net.state_dict())
    copies = [copy.deepcopy(net), other]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert not torch.equal(net(x), y)
    for same in copies:
        assert torch.equal(same(x), y)


@pytest.mark.parametrize("name", NETS)
def test_nets_are_pickled_with_their_shapes(name):
    net, x = net_and_data(name, (3,))
    same = pickle.loads(pickle.dumps(net))
    assert torch.equal(same(x), net(x))
    assert (same.in_shape, same.out_shape) == (net.in_shape, net.out_shape)


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_left_on_the_default_device(name):
    net, x = net_and_data(name, (2, 3), "meta")
    assert net(x).is_meta


@pytest.mark.parametrize("shape", [(0,), (3, -1)], ids=str)
@pytest.mark.parametrize("name", [name for name in NETS if "(" not in name])
def test_sizes_must_be_positive(name, shape):
    net = NETS[name]()
    with pytest.raises(ValueError, match=f"{type(net).__name__} got in_shape=.*positive integer"):
        type(net)(shape, net.out_shape)
    with pytest.raises(ValueError, match=f"{type(net).__name__} got out_shape=.*positive integer"):
        type(net)(net.in_shape, shape)


# Layers.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_maps_its_shapes(name, dtype, device):
    build, in_shape, out_shape = LAYERS[name]
    layer, x = build().to(device, dtype), torch.randn(4, *in_shape, device=device, dtype=dtype)
    y = layer(x)
    assert y.shape == (4, *out_shape)
    assert (y.dtype, y.device) == (x.dtype, x.device)
    assert layer(x[:0]).shape == (0, *out_shape)
    torch.testing.assert_close(layer(x[0]) if x.dim() == 2 else layer(x[:1])[0], y[0])


@pytest.mark.parametrize("name", LAYERS)
def test_a_gate_multiplies_a_value(name):
    """The layer equals h(x) * sigmoid(g(x)) of two separate layers that have its halves as weights."""
    build, in_shape, _ = LAYERS[name]
    both = build().value_and_gate
    x = torch.randn(4, *in_shape)
    out_dim = 1 if isinstance(both, nn.ConvTranspose2d) else 0  # of the weight

    def half(index):
        part = copy.deepcopy(both)
        part.weight = nn.Parameter(both.weight.chunk(2, out_dim)[index])
        part.bias = nn.Parameter(both.bias.chunk(2)[index])
        return part(x)

    layer = build()
    layer.load_state_dict({f"value_and_gate.{key}": value for key, value in both.state_dict().items()})
    torch.testing.assert_close(layer(x), half(0) * half(1).sigmoid())


@pytest.mark.parametrize("name", LAYERS)
def test_both_halves_start_as_torch_starts_one_layer(name):
    """Weights and biases are uniform within 1 / sqrt(fan in), fan in being that of a layer without a gate."""
    layers = [LAYERS[name][0]().value_and_gate for _ in range(20)]
    fan_in = layers[0].weight[0].numel()
    if isinstance(layers[0], nn.ConvTranspose2d):
        fan_in //= 2  # torch counts output channels here, and half of them are the gate
    largest = max(parameter.abs().max().item() for layer in layers for parameter in layer.parameters())
    assert 0.95 * fan_in**-0.5 < largest <= fan_in**-0.5 * (1 + 1e-6)  # of so many, the largest is near the bound
