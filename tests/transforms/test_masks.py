# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Masks of couplings on images: channels by their indices, pixels like the fields of a chessboard."""

import copy
import pickle
from functools import partial

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms.additive_coupling import AdditiveCoupling
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.masks import Checkerboard, IndexMask
from pyro_dgm.transforms.spline_coupling import SplineCoupling
from tests.transforms.random_flows import randomise

COUPLINGS = [AdditiveCoupling, AffineCoupling, SplineCoupling]
every_coupling = pytest.mark.parametrize("coupling", COUPLINGS)
SHAPE = (3, 4, 5)
small = partial(ConvNet, hidden=(4,), kernels=(3, 3), activation=nn.Tanh)
ROWS, COLUMNS = torch.arange(4).unsqueeze(1), torch.arange(5)
EVEN = ((ROWS + COLUMNS) % 2 == 0).expand(SHAPE)


def image_of(mask, swap):
    """Which elements of an image pass."""
    if mask == "checkerboard":
        return EVEN != swap
    passes = [i < SHAPE[0] // 2 for i in range(SHAPE[0])] if mask is None else mask
    return torch.tensor(passes)[:, None, None].expand(SHAPE) != swap


@every_coupling
@pytest.mark.parametrize("mask", [None, [False, True, False], [True, True, False], "checkerboard"], ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_what_passes_passes_and_decides_about_the_rest(coupling, mask, swap):
    flow = randomise(coupling(SHAPE, mask=mask, swap=swap, net=small)).double()
    passes = image_of(mask, swap)
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    for function in (flow.forward_and_logdet, flow.inverse_and_logdet):
        y, logdet = function(x)
        assert torch.equal(y[:, passes], x[:, passes])
        assert (y != x)[:, ~passes].all()
        assert logdet.shape == (6,)
        one = x.clone()  # what is changed decides about nothing but itself
        first = tuple((~passes).nonzero()[0].tolist())
        one[:, *first] += 1
        assert (function(one)[0] != y).nonzero()[:, 1:].unique(dim=0).tolist() == [list(first)]


@pytest.mark.parametrize("swap", [False, True])
def test_the_network_sees_a_chessboard_with_empty_fields(swap):
    seen = []

    class Watch(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.out_shape = out_shape

        def forward(self, x):
            seen.append(x)
            return x.new_zeros(*x.shape[:-3], *self.out_shape)

    x = torch.randn(6, *SHAPE) + 10
    AffineCoupling(SHAPE, mask="checkerboard", swap=swap, net=Watch)(x)
    assert torch.equal(seen[0], torch.where(image_of("checkerboard", swap), x, 0))


def test_the_factory_is_asked_for_channels():
    asked = []

    def net(in_shape, out_shape):
        asked.append((in_shape, out_shape))
        return ConvNet(in_shape, out_shape)

    AffineCoupling((4, 2, 2), net=net, context_dim=7)
    AffineCoupling((5, 2, 2), net=net)
    AdditiveCoupling((3, 2, 2), mask="checkerboard", net=net, context_dim=(2, 2, 2))
    SplineCoupling((3, 2, 2), mask=[True, False, True], bins=4, net=net)
    assert asked == [
        ((2 + 7, 2, 2), (4, 2, 2)),
        ((2, 2, 2), (6, 2, 2)),
        ((3 + 2, 2, 2), (3, 2, 2)),
        ((2, 2, 2), (11, 2, 2)),
    ]


@pytest.mark.parametrize("mask", [None, [True, False, True], "checkerboard"], ids=str)
def test_a_coupling_starts_as_the_identity(mask):
    flow, x = AffineCoupling(SHAPE, mask=mask), torch.randn(6, *SHAPE)
    y, logdet = flow.forward_and_logdet(x)
    assert torch.equal(y, x)
    assert not logdet.any()


@pytest.mark.parametrize("mask", [[False, True, True], "checkerboard"], ids=str)
def test_the_mask_is_saved(mask):
    flow = randomise(AffineCoupling(SHAPE, mask=mask, swap=mask == "checkerboard", net=small))
    x = torch.randn(6, *SHAPE)
    other = AffineCoupling(SHAPE, mask=mask if mask == "checkerboard" else [True, True, False], net=small)
    other.load_state_dict(flow.state_dict())
    for again in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(again.forward_and_logdet(x), flow.forward_and_logdet(x))


def test_parts_join_again():
    x, logdet = torch.randn(2, 6, *SHAPE), torch.randn(2, 6, *SHAPE)
    for mask in (Checkerboard(SHAPE), Checkerboard(SHAPE, odd=True), IndexMask(SHAPE, [False, True, False])):
        kept, moved, _ = mask.part(x)
        whole, total = mask.join(kept, moved, logdet[..., : mask.moved_shape[0], :, :])
        assert torch.equal(whole, x)
        assert total.shape == (2, 6)
    halves = [Checkerboard(SHAPE, odd=odd).join(x, x, logdet)[1] for odd in (False, True)]
    torch.testing.assert_close(halves[0] + halves[1], logdet.sum((-3, -2, -1)))


# Mistakes.


@every_coupling
@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        (SHAPE, [True, False], r"got a mask of 2 values: it needs 3, one for each channel, as in mask=\["),
        (SHAPE, [True] * 3, r"got a mask that leaves nothing to transform: True passes"),
        (SHAPE, [False] * 3, r"got a mask that leaves nothing to condition on"),
        ((1, 4, 4), None, r"got a mask that leaves nothing to condition on"),
        ((3, 1, 1), "checkerboard", r"got mask='checkerboard', which leaves nothing of a single pixel: take a mask of"),
        (4, "checkerboard", r"got mask='checkerboard': it must be a value for each dimension or channel"),
        ((4, 4), None, r"got shape=\(4, 4\): it needs a number of dimensions, or \(C, H, W\)"),
    ],
)
def test_masks_that_cannot_be_are_named(coupling, shape, mask, message):
    with pytest.raises(ValueError, match=message):
        coupling(shape, mask=mask)


@every_coupling
@pytest.mark.parametrize("context", [(2, 4, 4), (2, 5, 5), (2, 5)], ids=str)
def test_contexts_of_another_size_are_named(coupling, context):
    with pytest.raises(ValueError, match=r"must have the same height and width, \(4, 5\)"):
        coupling(SHAPE, context_dim=context)
    with pytest.raises(ValueError, match="vectors need a number"):
        coupling(4, context_dim=(2, 4, 4))


@every_coupling
def test_with_a_context_one_channel_is_enough(coupling):
    flow = randomise(coupling((1, 2, 2), mask=[False], context_dim=3, net=small)).double()
    x, h = torch.randn(5, 1, 2, 2, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    y, _ = flow.condition(h).forward_and_logdet(x)
    torch.testing.assert_close(flow.condition(h).inverse_and_logdet(y)[0], x)


@every_coupling
@pytest.mark.parametrize("context_dim", [None, 2, (2, 4, 5)], ids=str)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,), (2, 0)], ids=str)
def test_plain_networks_of_torch_see_images_in_a_row(coupling, context_dim, batch):
    def net(seen, raw):
        return nn.Sequential(nn.Conv2d(seen[0], 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, raw[0], 1))

    flow = randomise(coupling(SHAPE, net=net, context_dim=context_dim)).double()
    x = torch.randn(*batch, *SHAPE, dtype=torch.float64)
    if context_dim is not None:
        flow = flow.condition(torch.randn(*batch[-1:], *flow.context_shape, dtype=torch.float64))
    y, logdet = flow.forward_and_logdet(x)
    assert logdet.shape == batch
    torch.testing.assert_close(flow.inverse_and_logdet(y)[0], x)
    if len(batch) == 2 and batch[1] and context_dim is None:
        one, volume = flow.forward_and_logdet(x[1, 2])
        torch.testing.assert_close((one, volume), (y[1, 2], logdet[1, 2]))


@every_coupling
def test_networks_of_another_shape_are_named(coupling):
    with pytest.raises(ValueError, match=r"\(shape=\(3, 4, 5\)\) has a net= that gives \(1, 4, 5\) for each datum"):
        coupling(SHAPE, net=lambda seen, raw: ConvNet(seen, (1, 4, 5)))
    flow = coupling(SHAPE, net=lambda seen, raw: nn.Conv2d(seen[0], raw[0], 3))
    with pytest.raises(ValueError, match=r"has a net= that gives \([0-9]+, 2, 3\) for each datum, and needs"):
        flow(torch.randn(6, *SHAPE))
    flow = coupling(4, context_dim=2, net=lambda seen, raw: nn.Linear(seen[0], 5))
    with pytest.raises(ValueError, match=r"\(dim=4, context_dim=2\) has a net= that gives \(5,\) for each datum, and"):
        flow.condition(torch.randn(2))(torch.randn(6, 4))
    with pytest.raises((ValueError, TypeCheckError), match="net"):
        coupling(4, net=3)


@pytest.mark.parametrize("mask", [None, [False, True, True], "checkerboard"], ids=str)
@pytest.mark.parametrize("assign", [False, True])
def test_it_is_loaded_into_memory_that_was_not_set(mask, assign):
    flow, x = randomise(AffineCoupling(SHAPE, mask=mask, net=small)), torch.randn(6, *SHAPE)
    with torch.device("meta"):
        other = AffineCoupling(SHAPE, mask=mask, net=small)
    with pytest.warns(UserWarning, match="which is a no-op"):
        AffineCoupling(SHAPE, mask=mask, net=small).to("meta").load_state_dict(flow.state_dict())
    other = other if assign else other.to_empty(device="cpu")
    other.load_state_dict(flow.state_dict(), assign=assign)
    assert torch.equal(other(x), flow(x))
