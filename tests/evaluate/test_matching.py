# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Components find their partners whatever their order, and the pairing is the cheapest of all."""

import itertools

import pytest
import torch

from pyro_dgm.evaluate.matching import match_components, matched_distance, pairwise_distances


def test_a_shuffled_mixture_is_at_distance_zero(device):
    means = torch.randn(7, 3, dtype=torch.float64, device=device)
    order = torch.randperm(7, device=device)
    match = match_components(pairwise_distances(means[order], means))
    assert means[order][match].equal(means)
    assert match.equal(order.argsort())
    assert matched_distance(means[order], means) == 0


@pytest.mark.parametrize("columns", [2, 4])
def test_the_pairing_is_the_cheapest_of_all(columns):
    torch.manual_seed(0)
    for _ in range(20):
        cost = torch.rand(4, columns)
        ways = itertools.permutations(range(4), columns)
        best = min(sum(float(cost[row, column]) for column, row in enumerate(way)) for way in ways)
        match = match_components(cost)
        assert len(set(match.tolist())) == columns
        assert float(cost[match, torch.arange(columns)].sum()) == pytest.approx(best)


def test_distances_of_near_points_are_exact():
    """The usual shortcut by inner products would lose all digits of points far from zero."""
    a = torch.tensor([[1e6, 0.0]], dtype=torch.float64)
    assert pairwise_distances(a, a + torch.tensor([3e-4, 4e-4])).item() == pytest.approx(5e-4, rel=1e-5)


def test_events_of_any_shape():
    pictures = torch.randn(3, 4, 4)
    assert matched_distance(pictures.flip(0), pictures) == 0


def test_refusals():
    with pytest.raises(ValueError, match="K at least J"):
        match_components(torch.rand(2, 3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        match_components(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match="rows of shapes"):
        pairwise_distances(torch.rand(2, 3), torch.rand(2, 4))
