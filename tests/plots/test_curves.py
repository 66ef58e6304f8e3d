# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Curves and scatter plots say what their axes are, and show the numbers they were given."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pyro_dgm.plots import bound_vs_particles, latent_scatter, learning_curve

EPOCHS = list(range(1, 41))
HISTORY = {
    "epoch": EPOCHS,
    "train": [80 + 40 / epoch for epoch in EPOCHS],
    "valid": [85 + 0.01 * (epoch - 30) ** 2 if epoch % 5 == 0 else math.nan for epoch in EPOCHS],
}


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def texts(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_learning_curve_shows_both_losses_and_the_best_epoch():
    figure = learning_curve(HISTORY, unit="nats per image")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "negative bound (nats per image), lower is better")
    np.testing.assert_allclose(lines(figure)["training"].get_ydata(), HISTORY["train"])
    np.testing.assert_allclose(lines(figure)["validation"].get_xdata(), range(5, 41, 5))
    assert texts(figure) == ["training", "validation", "best: 85.00 at epoch 30"]
    assert png(figure).startswith(b"\x89PNG")


def test_warm_up_is_shaded_and_holds_no_best_epoch():
    valid = [10.0] * 4 + HISTORY["valid"][4:]
    figure = learning_curve(HISTORY | {"valid": valid}, warmup_end=10)
    (shade,) = figure.axes[0].patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (1, 10)
    assert texts(figure) == ["warm-up", "training", "validation", "best: 85.00 at epoch 30"]
    bottom, top = figure.axes[0].get_ylim()
    assert 70 < bottom < top < 100


def test_other_column_names_no_validation_and_one_epoch():
    figure = learning_curve({"step": [3], "loss": [1.5]}, epoch="step", train="loss", valid=None)
    assert texts(figure) == ["training"]
    assert png(figure)
    assert "best" not in " ".join(texts(learning_curve(HISTORY, warmup_end=100)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": [1.0]}, "for 40 values"),
        ({"train": [math.nan] * 40}, "without one finite number"),
        ({"train": [], "epoch": [], "valid": []}, "at least one"),
    ],
)
def test_learning_curve_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        learning_curve(HISTORY | change)
    with pytest.raises(ValueError, match="needs column 'loss' and history has"):
        learning_curve(HISTORY, train="loss")


def test_bound_has_a_logarithmic_axis_error_bars_and_the_exact_value():
    errors = [0.1, 0.2, math.nan]
    figure = bound_vs_particles([10, 1, 100], [83.0, 85.0, 82.5], errors, exact=82.0, unit="nats per image")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "number of particles K"
    assert axes.get_ylabel() == "negative bound (nats per image), lower is tighter"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "100"]
    (container,) = axes.containers
    np.testing.assert_allclose(container.lines[0].get_xydata(), [[1, 85], [10, 83], [100, 82.5]])
    segments = container.lines[2][0].get_segments()
    np.testing.assert_allclose(segments[0][:, 1], [84.8, 85.2])
    assert set(texts(figure)) == {"exact $-\\log p(x)$", "bound $\\pm$ s.e."}
    assert png(figure).startswith(b"\x89PNG")


def test_bound_without_errors():
    assert texts(bound_vs_particles([1, 2], [3.0, 2.0])) == ["bound"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [3.0]), "2 numbers of particles, 1 means"),
        (([], []), "at least one"),
        (([0, 2], [3.0, 2.0]), "K is at least 1"),
        (([1, 2], [3.0, math.nan]), "finite"),
        (([1, 2], [3.0, 2.0], [0.1]), "1 standard errors"),
    ],
)
def test_bound_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        bound_vs_particles(*arguments)


def test_scatter_of_two_dimensions_shows_them_as_they_are(device):
    z = torch.randn(50, 2, device=device)
    figure = latent_scatter(z, torch.arange(50, device=device) % 3)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", "$z_2$")
    assert texts(figure) == ["0", "1", "2"]
    found = np.concatenate([dots.get_offsets() for dots in axes.collections])
    np.testing.assert_allclose(found, torch.cat([z[c::3] for c in range(3)]).cpu(), rtol=1e-6)
    assert png(figure).startswith(b"\x89PNG")


def test_scatter_of_digits_says_that_it_is_a_projection():
    digits = load_digits()
    figure = latent_scatter(torch.as_tensor(digits.data), torch.as_tensor(digits.target))
    assert figure.axes[0].get_xlabel() == "principal component 1 (15 % of the variance)"
    assert figure.axes[0].get_ylabel() == "principal component 2 (14 % of the variance)"
    assert [text.get_text() for text in figure.axes[0].texts] == [str(label) for label in range(10)]
    assert png(figure).startswith(b"\x89PNG")


def test_scatter_without_labels_and_with_a_scale():
    z = torch.randn(30, 2)
    assert len(latent_scatter(z).axes) == 1
    for labels in (torch.rand(30), torch.arange(30)):
        bar = latent_scatter(z, labels).axes[1]
        assert bar.get_ylabel() == "label"


@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        (torch.zeros(5), None, r"\(5,\): it needs \(N, L\)"),
        (torch.zeros(5, 1), None, "at least 2"),
        (torch.zeros(5, 2) / 0, None, "NaN or infinity"),
        (torch.zeros(5, 2), torch.zeros(4), "one label per row"),
    ],
)
def test_scatter_refusals(z, labels, message):
    with pytest.raises(ValueError, match=message):
        latent_scatter(z, labels)


def test_the_room_loads_no_window_and_no_scikit_learn():
    code = "import sys, pyro_dgm.plots; assert not {'matplotlib.pyplot', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})
