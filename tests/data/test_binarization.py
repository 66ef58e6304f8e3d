# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A grey pixel is white with exactly the probability that its grey stands for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pyro_dgm.data import binarize
from pyro_dgm.data.binarization import Binarizer


@pytest.mark.parametrize("grey_levels", [2, 3, 17, 256])
def test_the_mean_is_the_grey_and_pixels_are_independent(device, grey_levels):
    number = 20_000
    grey = torch.arange(grey_levels, dtype=torch.uint8, device=device).expand(number, grey_levels)
    bits = Binarizer(grey_levels=grey_levels, device=device, seed=(1,))(grey).double()
    p = torch.arange(grey_levels, device=device) / (grey_levels - 1)
    standard_error = (p * (1 - p) / number).sqrt()
    assert ((bits.mean(0) - p).abs() <= 4.5 * standard_error).all()
    neighbours = ((bits - p)[:, 1:] * (bits - p)[:, :-1]).mean(0).abs()
    assert (neighbours <= 4.5 * (p * (1 - p))[1:].sqrt() * (p * (1 - p))[:-1].sqrt() / number**0.5).all()


@given(arrays(np.uint8, array_shapes(max_dims=3)), st.integers(0, 2**32))
def test_black_stays_black_white_stays_white_and_shapes_stay(x, seed):
    x = torch.from_numpy(x)
    bits = binarize(x, grey_levels=256, seed=seed)
    assert bits.shape == x.shape
    assert bits.dtype == torch.uint8
    assert not bits[x == 0].any()
    assert (bits[x == 255] == 1).all()
    assert int(bits.max()) <= 1
    assert torch.equal(bits, binarize(x, grey_levels=256, seed=seed))


def test_bits_stay_bits():
    x = torch.randint(2, (50, 8))
    assert torch.equal(binarize(x, grey_levels=2, seed=0), x.to(torch.uint8))


def test_the_chance_of_every_level_is_exact():
    """Give each of the G - 1 values of the comparison to each grey: x of them must make it white."""
    for grey_levels in (3, 17, 256):
        draw = Binarizer(grey_levels=grey_levels, device=torch.device("cpu"), seed=(0,))
        values = torch.arange(grey_levels - 1, dtype=torch.uint8)
        draw._uniform = lambda shape, device, values=values: values.unsqueeze(1)
        white = draw(torch.arange(grey_levels, dtype=torch.uint8).unsqueeze(0)).sum(0)
        assert torch.equal(white, torch.arange(grey_levels))


def test_skipping_is_drawing(device):
    x = torch.randint(256, (4, 100), dtype=torch.uint8, device=device)
    whole, rest = (Binarizer(grey_levels=256, device=device, seed=(2, 3)) for _ in range(2))
    whole(x)
    rest.skip(tuple(x.shape), device)
    assert torch.equal(whole(x), rest(x))


def test_a_set_that_is_binarised_once_is_the_same_on_every_device(device):
    x = torch.arange(256, dtype=torch.uint8).repeat(10)
    bits = binarize(x.to(device), grey_levels=256, seed=3)
    assert bits.device.type == device.type
    assert torch.equal(bits.cpu(), binarize(x, grey_levels=256, seed=3))


@pytest.mark.parametrize("grey_levels", [1, 257])
def test_too_few_or_many_levels(grey_levels):
    with pytest.raises(ValueError, match="2 to 256"):
        binarize(torch.zeros(1, dtype=torch.uint8), grey_levels=grey_levels, seed=0)
