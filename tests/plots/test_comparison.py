# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Ellipses lie where the components are, and curves show the numbers that they were given."""

import io
import math

import numpy as np
import pytest
import torch

from pyro_dgm.plots import comparison_curves, ellipses

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3


def mixture(weights=(0.5, 0.5), tilt=0.0):
    covariance = torch.tensor([[4.0, tilt, 0], [tilt, 1, 0], [0, 0, 9]])
    return torch.tensor(weights), torch.tensor([[0.0, 0, 0], [1, 2, 3]]), covariance.expand(len(weights), 3, 3)


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue().startswith(b"\x89PNG")


def test_an_ellipse_is_the_level_set_of_its_normal():
    figure = ellipses(X, {"EM": mixture(tilt=1.2)}, LABELS, radius=2)
    patch = figure.axes[0].patches[1]
    points = torch.from_numpy(patch.get_transform().transform(patch.get_path().vertices))
    points = torch.from_numpy(figure.axes[0].transData.inverted().transform(points.numpy()))
    away = points - torch.tensor([1.0, 2.0])
    covariance = torch.tensor([[4.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
    distance = (away @ torch.linalg.inv(covariance) * away).sum(-1)
    on_curve = distance[::3]  # every third vertex of the Bezier spline lies on the ellipse
    assert on_curve[:-1].allclose(torch.tensor(4.0, dtype=torch.float64), rtol=1e-6)
    assert png(figure)


def test_small_multiples_share_range_and_colours():
    figure = ellipses(X, {"EM": mixture(), "SVI": mixture(), "k-means": mixture(), "NUTS": mixture()}, columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["EM", "SVI", "k-means", "NUTS"]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    colours = {tuple(tuple(patch.get_edgecolor()[:3]) for patch in axes.patches) for axes in figure.axes}
    assert len(colours) == 1


def colours(axes):
    points = {tuple(colour[:3]) for colour in axes.collections[0].get_facecolors()}
    return points, {(tuple(patch.get_edgecolor()[:3]), patch.get_linestyle()) for patch in axes.patches}


@pytest.mark.parametrize("labels", [None, LABELS])
def test_points_and_ellipses_have_colours_of_their_own(labels):
    points, ovals = colours(ellipses(X, {"EM": mixture((0.1,) * 2)}, labels).axes[0])
    assert len(points) == (1 if labels is None else 3)
    assert not points & {colour for colour, _ in ovals}
    ten = torch.full((10,), 0.1), torch.zeros(10, 2), torch.eye(2).expand(10, 2, 2)
    points, ovals = colours(ellipses(X, {"EM": ten}, labels).axes[0])
    assert len(ovals) == (10 if labels is None else 1), "ten components are told apart"
    assert not points & {colour for colour, _ in ovals}


def test_ellipses_are_inside_unless_they_are_huge():
    def inside(axes, reach):
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        return left < -reach[0] and right > reach[0] and low < -reach[1] and high > reach[1]

    box = torch.tensor([[-2.0, -1.0], [2.0, 1.0], [0.5, 0.5]])
    one, centre = torch.ones(1), torch.zeros(1, 2)
    axes = ellipses(box, {"EM": (one, centre, torch.diag(torch.tensor([2.0, 0.5]))[None])}).axes[0]
    assert inside(axes, (2 * 2**0.5, 2 * 0.5**0.5))
    axes = ellipses(box, {"EM": (one, centre, 1e4 * torch.eye(2)[None])}).axes[0]
    assert inside(axes, (4, 2))
    assert max(axes.get_xlim()) < 4.5, "the data must still be seen"
    assert inside(ellipses(box[:1] * 0, {"EM": (one, centre, 0.01 * torch.eye(2)[None])}).axes[0], (0.2, 0.2))


def test_a_component_without_weight_is_not_drawn():
    assert len(ellipses(X, {"mean field": mixture((0.999, 0.001))}).axes[0].patches) == 1


def test_refusals_of_ellipses():
    with pytest.raises(ValueError, match="0 mixtures"):
        ellipses(X, {})
    with pytest.raises(ValueError, match="D at least 2"):
        ellipses(X[:, :1], {"EM": mixture()})
    with pytest.raises(ValueError, match="labels of shape"):
        ellipses(X, {"EM": mixture()}, LABELS[:5])
    with pytest.raises(ValueError, match="of 'EM' weights"):
        ellipses(X, {"EM": (torch.ones(3), *mixture()[1:])})
    with pytest.raises(ValueError, match="eigenvalues"):
        ellipses(X, {"EM": mixture(tilt=5.0)})


def test_curves_against_sweeps_and_seconds():
    figure = comparison_curves({"EM": ([0, 1, 2], [0.0, 0.1, 0.2], [-9, -7, -6]), "NUTS": ([500], [20], [-6.5])})
    left, right = figure.axes
    assert left.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert right.lines[0].get_xdata().tolist() == [0.1, 0.2], "a logarithm has no place for 0 seconds"
    assert left.lines[0].get_ydata().tolist() == [-9, -7, -6]
    assert right.lines[0].get_ydata().tolist() == [-7, -6]
    assert right.get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["EM", "NUTS"]
    assert left.lines[1].get_marker() == "o", "a single point must be seen"
    assert png(figure)


def test_no_line_crosses_orders_of_magnitude():
    figure = comparison_curves({"NUTS": ([0, 40, 50], [0.0, 2.0, 3.0], [-9, -7, -6]), "k-means": ([0], [0.0], [-8])})
    left, right = figure.axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[40, 50], [0]]
    assert [line.get_xdata().tolist() for line in right.lines] == [[2, 3], []]
    assert right.get_xlim()[0] > 1


def test_the_steep_beginning_takes_no_part_in_the_range():
    nats = [-1e6, *np.linspace(-10, -9, 20)]
    axes = comparison_curves({"EM": (range(21), range(21), nats)}).axes[0]
    assert -11 < axes.get_ylim()[0] < -10


@pytest.mark.parametrize(
    "curves", [{}, {"EM": ([], [], [])}, {"EM": ([1], [1, 2], [1])}, {"EM": ([1], [1], [math.nan])}]
)
def test_refusals_of_curves(curves):
    with pytest.raises(ValueError, match="comparison_curves got"):
        comparison_curves(curves)
