# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sheets of images show every pixel where it belongs."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from pyro_dgm.plots import reconstructions, samples, traversal

DIGITS = torch.as_tensor(load_digits().images).long()  # (1797, 8, 8), levels 0 ... 16


def canvas(figure):
    """The one image in the figure, grey: shape (H, W)."""
    (axes,) = figure.axes
    (image,) = axes.images
    array = np.asarray(image.get_array())
    assert array.shape[-1] == 3
    return array


def cell(array, row, column, size=8, gap=1):
    top, left = gap + row * (size + gap), gap + column * (size + gap)
    return array[top : top + size, left : left + size]


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return len(buffer.getvalue())


def test_samples_are_laid_out_in_rows(device):
    figure = samples(DIGITS[:7].to(device), levels=17, columns=3, title="Digits")
    array = canvas(figure)
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_title() == "Digits"
    assert array.shape == (3 * 9 + 1, 3 * 9 + 1, 3)
    for number in range(7):
        expected = DIGITS[number].double() / 16
        np.testing.assert_allclose(cell(array, number // 3, number % 3)[..., 0], expected)
    assert (cell(array, 2, 1) == 1).all()
    assert (array[0] == 1).all()
    assert png(figure) > 1000


def test_a_sheet_is_about_square_and_not_wider_than_its_images():
    assert canvas(samples(DIGITS[:64], levels=17)).shape[:2] == (73, 73)
    assert canvas(samples(DIGITS[:2], levels=17, columns=10)).shape[:2] == (10, 19)


def test_colours_keep_their_channels():
    x = torch.stack([DIGITS[0], 0 * DIGITS[0], 16 - DIGITS[0]]).unsqueeze(0)  # (1, 3, 8, 8)
    found = cell(canvas(samples(x, levels=17)), 0, 0)
    np.testing.assert_allclose(found, x[0].permute(1, 2, 0).double() / 16)
    grey = canvas(samples(DIGITS[:1].unsqueeze(1), levels=17))
    np.testing.assert_array_equal(grey, canvas(samples(DIGITS[:1], levels=17)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_every_dtype_and_flat_data(dtype):
    expected = canvas(samples(DIGITS[:4], levels=17))
    np.testing.assert_allclose(canvas(samples(DIGITS[:4].flatten(1).to(dtype), levels=17, shape=(8, 8))), expected)


def test_binary_images_are_black_and_white():
    array = canvas(samples((DIGITS[:4] > 8).int(), levels=2))
    assert set(np.unique(array)) == {0.0, 1.0}


def test_reconstructions_stand_below_their_data():
    x_hat = 16.0 - DIGITS[:5]
    figure = reconstructions(DIGITS[:5], x_hat, levels=17, columns=3)
    array = canvas(figure)
    assert names(figure.axes[0].yaxis) == ["data", "model", "data", "model"]
    for number in range(5):
        row, column = 2 * (number // 3), number % 3
        np.testing.assert_allclose(cell(array, row, column)[..., 0], DIGITS[number].double() / 16)
        np.testing.assert_allclose(cell(array, row + 1, column)[..., 0], 1 - DIGITS[number].double() / 16)
    assert png(figure) > 1000


def test_a_traversal_has_a_row_for_each_coordinate():
    grid = DIGITS[:6].unflatten(0, (2, 3))
    figure = traversal(grid, levels=17, values=[-1.5, 0, 1.5], names=["width", "slant"])
    (axes,) = figure.axes
    assert names(axes.yaxis) == ["width", "slant"]
    assert names(axes.xaxis) == ["-1.5", "0", "1.5"]
    assert axes.get_xlabel() == "value of the coordinate"
    np.testing.assert_allclose(cell(canvas(figure), 1, 2)[..., 0], DIGITS[5].double() / 16)
    assert names(traversal(grid, levels=17).axes[0].yaxis) == ["$z_{1}$", "$z_{2}$"]
    assert png(figure) > 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: samples(x[:0], levels=17), r"\(0, 8, 8\): it needs \(N, H, W\)"),
        (lambda x: samples(x.flatten(1), levels=17), r"Flat data need shape=\(H, W\)"),
        (lambda x: samples(x.flatten(1), levels=17, shape=(7, 8)), r"does not fit images of shape=\(7, 8\)"),
        (lambda x: samples(x.unsqueeze(1).expand(-1, 2, 8, 8), levels=17), "1 or 3 channels"),
        (lambda x: samples(x, levels=16), "from 0 to 16: with levels=16 they must lie in 0 ... 15"),
        (lambda x: samples(x - 1, levels=17), "from -1 to"),
        (lambda x: samples(x * float("nan"), levels=17), "NaN"),
        (lambda x: samples(x, levels=1), "levels=1"),
        (lambda x: samples(x, levels=17, columns=0), "columns=0"),
        (lambda x: reconstructions(x, x[:2], levels=17), "must agree"),
        (lambda x: reconstructions(x, x, levels=17, columns=0), "columns=0"),
        (lambda x: reconstructions(x[:0], x[:0], levels=17), r"\(0, 8, 8\)"),
        (lambda x: traversal(x, levels=17), r"it needs \(coordinates, steps, H, W\)"),
        (lambda x: traversal(x.unsqueeze(0), levels=17, values=[1.0]), "1 coordinates x 5 steps .* 1 values"),
        (lambda x: traversal(x.unsqueeze(0), levels=17, names=["a", "b"]), "2 names and no values"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(DIGITS[:5])
