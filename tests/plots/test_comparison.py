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
    assert right.lines[0].get_xdata().tolist() == [1e-4, 0.1, 0.2], "a logarithm needs more than 0 seconds"
    assert left.lines[0].get_ydata().tolist() == right.lines[0].get_ydata().tolist() == [-9, -7, -6]
    assert right.get_xscale() == "log"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["EM", "NUTS"]
    assert left.lines[1].get_marker() == "o", "a single point must be seen"
    assert png(figure)


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
