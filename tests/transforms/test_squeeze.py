# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A squeeze moves pixels into channels, in an order in which halves of the channels are colours of a chessboard."""

import copy

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.squeeze import Squeeze


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 6), (2, 2, 8)], ids=str)
def test_it_is_the_formula(shape):
    channels, height, width = shape
    flow, x = Squeeze(shape), torch.randn(5, *shape)
    y, logdet = flow.forward_and_logdet(x)
    assert flow.out_shape == (4 * channels, height // 2, width // 2)
    for k, (r, s) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0)]):
        assert torch.equal(y[:, k * channels : (k + 1) * channels], x[:, :, r::2, s::2])
    assert torch.equal(logdet, torch.zeros(5))
    back, logdet = flow.inverse_and_logdet(y)
    assert torch.equal(back, x)
    assert torch.equal(logdet, torch.zeros(5))


def test_the_first_half_of_the_channels_is_a_colour_of_the_chessboard():
    flow, shape = Squeeze((2, 6, 4)), (2, 6, 4)
    rows, columns = torch.arange(6).unsqueeze(1), torch.arange(4)
    y = flow(((rows + columns) % 2).float().expand(shape))
    assert not y[:4].any()
    assert y[4:].all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_whatever_leading_dimensions_and_layout(batch, device):
    flow, x = Squeeze((3, 4, 6)), torch.randn(*batch, 3, 4, 6, device=device)
    y, logdet = flow.forward_and_logdet(x)
    assert (y.shape, logdet.shape, y.device, y.dtype) == ((*batch, 12, 2, 3), batch, x.device, x.dtype)
    strided = x.movedim(-3, -1).contiguous().movedim(-1, -3)
    assert torch.equal(flow(strided), y)
    assert torch.equal(flow.inv(y.clone()), x)
    turned = y.movedim(-3, -1).contiguous().movedim(-1, -3)
    assert torch.equal(flow.inv(turned), x)


def test_gradients_go_where_the_pixels_went():
    flow, x = Squeeze((2, 4, 4)), torch.randn(3, 2, 4, 4, requires_grad=True)
    y, upstream = flow(x), torch.randn(3, 8, 2, 2)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(gradient, flow.inv(upstream))
    back = flow.inv(z := torch.randn(3, 8, 2, 2, requires_grad=True))
    (gradient,) = torch.autograd.grad(back, z, upstream := torch.randn(3, 2, 4, 4))
    assert torch.equal(gradient, flow(upstream))


def test_two_squeezes_chain_and_chessboards_meet():
    twice = Compose([Squeeze((1, 8, 4)), Squeeze((4, 4, 2))])
    assert (twice.shape, twice.out_shape) == ((1, 8, 4), (16, 2, 1))
    x = torch.randn(5, 1, 8, 4)
    assert torch.equal(twice.inv(twice(x).clone()), x)
    flow = Compose([Squeeze((1, 8, 4)), AffineCoupling((4, 4, 2)), Invert(Squeeze((1, 8, 4)))])
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    changed = (flow(x) != x).any(0)[0]
    rows, columns = torch.arange(8).unsqueeze(1), torch.arange(4)
    assert torch.equal(changed, (rows + columns) % 2 == 1)


def test_it_stands_behind_a_distribution_of_images():
    base = dist.Normal(torch.zeros(8, 2, 3), 1.0).to_event(3)
    law = dist.TransformedDistribution(base, [Invert(Squeeze((2, 4, 6)))])
    assert (law.batch_shape, law.event_shape) == ((), (2, 4, 6))
    x = law.rsample((5,))
    torch.testing.assert_close(law.log_prob(x), dist.Normal(0.0, 1.0).log_prob(x).sum((-3, -2, -1)))


def test_it_keeps_nothing_and_compiles():
    flow, x = Squeeze((2, 4, 6)), torch.randn(3, 2, 4, 6)
    assert not flow.state_dict()
    assert torch.equal(copy.deepcopy(flow)(x), flow(x))
    for function, value in ((flow.forward_and_logdet, x), (flow.inverse_and_logdet, flow(x))):
        torch.compiler.reset()
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(value), function(value))


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 4, 3), (1, 1, 1), (4, 4), (4,), 4, (1, 1, 4, 4)], ids=str)
def test_what_has_no_squares_is_named(shape):
    with pytest.raises(ValueError, match=r"Squeeze got shape=\(.*even height and width. Crop the images, or pad them"):
        Squeeze(shape)


def test_images_of_another_shape_are_named():
    flow = Squeeze((1, 4, 4))
    with pytest.raises(ValueError, match=r"Squeeze\(\(1, 4, 4\) -> \(4, 2, 2\)\) got a value of shape \(5, 1, 4, 6\)"):
        flow.forward_and_logdet(torch.randn(5, 1, 4, 6))
    with pytest.raises(ValueError, match=r"its last sizes must be \(4, 2, 2\)"):
        flow.inverse_and_logdet(torch.randn(5, 1, 4, 4))
    with pytest.raises(ValueError, match="takes no context"):
        flow.condition(torch.randn(5, 2))
