# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Paths between two data start at the one, end at the other, and stay as far from the origin as noise is."""

from functools import partial

import pytest
import torch
from torch import nn

from pyro_dgm.data import Digits
from pyro_dgm.evaluate import interpolate
from pyro_dgm.models import ImageFlow
from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms import Glow


class Same(nn.Module):
    """Its codes are the data."""

    def encode(self, x):
        return x

    def decode(self, noise):
        return noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_arc_keeps_the_length_and_the_pace(dtype, device):
    first, second = torch.randn(2, 5, 4, 3, dtype=dtype).to(device).unbind()
    unit = [x / x.flatten(1).norm(dim=1)[:, None, None] for x in (first, second)]
    path = interpolate(Same(), *unit, steps=7)
    assert (path.shape, path.dtype, path.device) == ((5, 7, 4, 3), dtype, first.device)
    torch.testing.assert_close((path[:, 0], path[:, -1]), tuple(unit))
    torch.testing.assert_close(path.flatten(2).norm(dim=2), torch.ones(5, 7, dtype=dtype, device=device))
    paces = path.diff(dim=1).flatten(2).norm(dim=2)
    torch.testing.assert_close(paces, paces[:, :1].expand(-1, 6))


def test_where_both_ends_are_alike_it_is_a_line():
    x = torch.randn(2, 6)
    torch.testing.assert_close(interpolate(Same(), x, x, steps=3), x.unsqueeze(1).expand(2, 3, 6))
    torch.testing.assert_close(interpolate(Same(), x, 3 * x, steps=3)[:, 1], 2 * x)


def test_images_are_between_images():
    net = partial(ConvNet, hidden=(8,), kernels=(3, 3))
    model = ImageFlow(shape=(8, 8), levels=17, flow=partial(Glow, scales=2, depth=1, net=net))
    x = Digits(binarization="none").test.x[:4]
    path = interpolate(model, x[:2], x[2:], steps=5)
    assert (path.shape, path.dtype) == ((2, 5, 8, 8), torch.int64)
    assert torch.equal(path[:, 0], x[:2].long())
    assert torch.equal(path[:, -1], x[2:].long())
    assert model.training  # and nothing was initialised by looking
    assert not any(bool(value) for name, value in model.state_dict().items() if name.endswith("initialized"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"interpolate got data of shape \(2, 3\) and \(1, 3\).*one shape"):
        interpolate(Same(), torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"steps=1.*at least 2"):
        interpolate(Same(), torch.zeros(2, 3), torch.zeros(2, 3), steps=1)
