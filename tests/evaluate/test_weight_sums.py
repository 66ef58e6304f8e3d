# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sums of weights that arrive in chunks are the sums of all weights at once."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyro_dgm.evaluate.weight_sums import WeightSums

log_weights = arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.floats(-2000, 2000)).map(
    torch.from_numpy
)


def sums(chunks):
    out = WeightSums(chunks[0].shape[1], chunks[0].device)
    for chunk in chunks:
        out.add(chunk)
    return out


@given(log_weights, st.integers(1, 5))
def test_chunks_change_nothing(log_w, chunk):
    parts, whole = sums(log_w.split(chunk)), sums([log_w])
    torch.testing.assert_close(parts.log_mean(), whole.log_mean())
    torch.testing.assert_close(parts.ess(), whole.ess())


@given(log_weights)
def test_agrees_with_the_definition(log_w):
    found = sums([log_w])
    w = (log_w - log_w.max(0).values).exp()
    torch.testing.assert_close(found.log_mean(), log_w.logsumexp(0) - math.log(len(log_w)))
    torch.testing.assert_close(found.ess(), w.sum(0).square() / w.square().sum(0))
    assert (found.ess() >= 1 - 1e-9).all()
    assert (found.ess() <= len(log_w) + 1e-9).all()


def test_float32_chunks_are_summed_in_float64(device):
    chunk = torch.full((1000, 1), -90.0, device=device)
    found = sums([chunk] * 1000)
    assert found.log_mean().dtype == torch.float64
    assert found.log_mean().item() == pytest.approx(-90.0, abs=1e-9)
    assert found.ess().item() == pytest.approx(1e6, rel=1e-9)


def test_zero_weights_are_counted_and_have_no_effective_sample():
    found = sums([torch.tensor([[-math.inf, -math.inf]]), torch.tensor([[-math.inf, 0.0]])])
    assert found.log_mean().tolist() == [-math.inf, pytest.approx(-math.log(2))]
    assert found.ess().tolist() == [0.0, 1.0]
