# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A split makes some channels normal given the others, and cuts an image in two."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms.split import Split

close = torch.testing.assert_close


@torch.no_grad()
def stirred(flow):
    """The flow with parameters of order 1, in double precision."""
    for parameter in flow.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape))
    return flow.double()


def data(*shape):
    return torch.randn(shape, dtype=torch.float64)


def standard(shape):
    return dist.Normal(torch.zeros(shape, dtype=torch.float64), 1.0).to_event(3)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_what_is_factored_out_is_normal_given_what_stays(keep):
    split, z = stirred(Split((5, 4, 6), keep=keep, bound=2)), data(3, 2, 5, 4, 6)
    kept, out = split.part(z)
    convolution = split.prior.net.layers[0]
    raw = functional.conv2d(kept.flatten(0, 1), convolution.weight, convolution.bias, padding=1)
    log_scale, mean = raw.unflatten(0, (3, 2)).split(5 - keep, -3)
    given = dist.Normal(mean, (2 * torch.tanh(log_scale / 2)).exp()).to_event(3)
    expected = standard(kept.shape[-3:]).log_prob(kept) + given.log_prob(out)
    close(dist.TransformedDistribution(standard((5, 4, 6)), [split]).log_prob(z), expected)


@pytest.mark.parametrize(("channels", "keep"), [(2, 1), (3, 1), (4, 2)])
def test_half_of_the_channels_stay(channels, keep):
    split, z = Split((channels, 2, 2)), data(3, channels, 2, 2)
    assert (split.keep, split.kept_shape, split.factored_shape) == (keep, (keep, 2, 2), (channels - keep, 2, 2))
    kept, out = split.part(z)
    assert torch.equal(kept, z[:, :keep])
    assert torch.equal(split.join(kept, out), z)


def test_it_starts_as_the_standard_normal():
    split, z = Split((4, 2, 2)), torch.randn(3, 4, 2, 2)
    close(split.forward_and_logdet(z), (z, torch.zeros(3)))


def test_without_a_network_it_stays_so():
    split, z = Split((4, 2, 2), learned=False), torch.randn(2, 3, 4, 2, 2)
    assert not list(split.parameters())
    for direction in (split.forward_and_logdet, split.inverse_and_logdet):
        close(direction(z), (z, torch.zeros(2, 3)))


@pytest.mark.parametrize("context_dim", [3, (3, 4, 2)])
def test_a_context_is_seen_beside_what_stays(context_dim):
    split, z = stirred(Split((4, 4, 2), context_dim=context_dim)), data(2, 5, 4, 4, 2)
    h = data(5, 3) if context_dim == 3 else data(5, 3, 4, 2)
    value, logdet = split.condition(h).forward_and_logdet(z)
    kept = z[:, :, :2]
    assert torch.equal(value[:, :, :2], kept)
    for i in range(5):
        close(split.condition(h[i]).forward_and_logdet(z[:, i]), (value[:, i], logdet[:, i]))
    assert not torch.allclose(split.condition(h.roll(1, 0)).forward_and_logdet(z)[1], logdet)


def test_one_that_stays_meets_many_that_are_factored_out():
    split = Split((3, 2, 2))
    joined = split.join(kept := data(1, 2, 2), out := data(5, 2, 2, 2))
    assert torch.equal(joined, torch.cat([kept.expand(5, -1, -1, -1), out], 1))


def test_a_network_of_ones_own():
    asked = []

    def net(in_shape, out_shape):
        asked.append((in_shape, out_shape))
        return ConvNet(in_shape, out_shape, hidden=(4,), kernels=(3, 3))

    split = Split((4, 2, 2), keep=3, net=net, context_dim=2)
    assert asked == [((5, 2, 2), (2, 2, 2))]
    assert not split.prior.net.layers[-1].weight.any()


def test_it_follows_the_device(device):
    split, z = Split((4, 2, 2)).to(device), torch.randn(3, 4, 2, 2, device=device)
    assert split(z).device == z.device
    nowhere = Split((4, 2, 2)).to("meta").inverse_and_logdet(z.to("meta"))
    assert [tuple(value.shape) for value in nowhere] == [(3, 4, 2, 2), (3,)]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (4, {}, r"shape=\(4,\): it needs that of an image"),
        ((4, 2), {}, r"shape=\(4, 2\): it needs that of an image"),
        ((0, 2, 2), {}, r"every size must be a positive integer"),
        ((1, 2, 2), {}, r"keep=0 .* would factor out everything; two channels are the fewest"),
        ((4, 2, 2), {"keep": 0}, r"keep=0 .* would factor out everything; it must lie in 1 \.\.\. 3"),
        ((4, 2, 2), {"keep": -1}, r"keep=-1 .* would factor out everything"),
        ((4, 2, 2), {"keep": 4}, r"keep=4 .* would factor out nothing; it must lie in 1 \.\.\. 3"),
        ((4, 2, 2), {"learned": False, "context_dim": 3}, r"context_dim=3 and learned=False: .* leave one"),
        ((4, 2, 2), {"context_dim": (3, 4, 4)}, r"the same height and width, \(2, 2\)"),
        ((4, 2, 2), {"bound": 0}, r"bound=0.0"),
    ],
)
def test_what_cannot_be_is_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        Split(shape, **options)


@pytest.mark.parametrize("keep", [1.5, 2.0])
def test_a_share_of_a_channel_is_named(keep):
    with pytest.raises((ValueError, TypeCheckError), match=rf"keep=?[\s\S]*{keep}"):
        Split((4, 2, 2), keep=keep)


def test_parts_of_other_shapes_are_named():
    split = Split((4, 2, 2), keep=1, net=partial(ConvNet, hidden=(4, 4)))
    with pytest.raises(ValueError, match=r"join got \(5, 2, 2, 2\) and .* must be \(1, 2, 2\), and \(3, 2, 2\)"):
        split.join(torch.randn(5, 2, 2, 2), torch.randn(5, 2, 2, 2))
