# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bars begin and end where they were told, and say how long they are."""

import io
import math

import pytest

from pyro_dgm.plots import part_bars

PARTS = {"KL": (0.0, 20.0), "information": (0.0, 9.0), "marginal KL": (9.0, 20.0)}


def test_bars_end_to_end_with_their_errors():
    figure = part_bars(PARTS, standard_errors={"KL": (0.5,), "information": (math.nan,)}, unit="nats per image")
    axes = figure.axes[0]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches] == list(PARTS.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(PARTS)
    assert [text.get_text().strip() for text in axes.texts] == ["20.00", "9.00", "11.00"]
    assert axes.get_xlabel() == "nats per image"
    assert axes.yaxis_inverted()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_a_negative_part_is_drawn_backwards():
    figure = part_bars({"whole": (0, 2), "part": (2, 1)})
    assert figure.axes[0].patches[1].get_width() == -1


def test_refusals():
    with pytest.raises(ValueError, match="no bars"):
        part_bars({})
    with pytest.raises(ValueError, match=r"\{'KL': \[0.0, nan\]\}"):
        part_bars({"KL": (0, math.nan)})
    with pytest.raises(ValueError, match="two finite numbers"):
        part_bars({"KL": (0, 1, 2)})
