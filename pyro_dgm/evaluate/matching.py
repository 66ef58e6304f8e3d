# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Components of two mixtures have no common order: find the pairing that brings them closest together."""

import torch
from torch import Tensor

from pyro_dgm.models.pairing import cheapest_pairing


def pairwise_distances(a: Tensor, b: Tensor) -> Tensor:
    """Measure the Euclidean distance of each row of a to each of b, exactly also where they nearly coincide.

    Args:
        a: Shape ``(K, *event)``.
        b: Shape ``(J, *event)``.

    Returns:
        Shape ``(K, J)``.

    Raises:
        ValueError: If the rows have different shapes.

    >>> pairwise_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[3.0], [1.0]]))
    tensor([[3., 1.],
            [0., 2.]])
    """
    if a.dim() < 1 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"pairwise_distances got rows of shapes {tuple(a.shape[1:])} and {tuple(b.shape[1:])}.")
    rows, columns = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return torch.cdist(rows, columns.to(rows), compute_mode="donot_use_mm_for_euclid_dist")


def match_components(cost: Tensor) -> Tensor:
    r"""Give each component of a reference its own component of another mixture, at the least total cost.

    .. math:: \min_\pi \sum_j c_{\pi(j) j}

    Args:
        cost: Cost of giving component j of the reference component k of the other, shape ``(K, J)`` with K at least
            J, e.g. `pairwise_distances` of the means.

    Returns:
        int64 of shape ``(J,)``: ``means[match]`` are in the reference's order. It is a permutation where K is J.

    Raises:
        ValueError: If there are fewer components than the reference has, or a cost is not finite.

    Source: Kuhn (1955), The Hungarian method for the assignment problem; `scipy.optimize.linear_sum_assignment`.

    >>> match_components(torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
    tensor([1, 0])
    """
    if cost.dim() != 2 or cost.shape[0] < cost.shape[1]:
        raise ValueError(
            f"match_components got costs of shape {tuple(cost.shape)}: (K, J) with K at least J is needed, so that "
            f"each of the reference's J components finds its own. Take the smaller mixture as the reference."
        )
    if not cost.isfinite().all():
        raise ValueError("match_components got a cost that is NaN or infinite: are all means finite?")
    return cheapest_pairing(cost.mT)


def matched_distance(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Average the distance of matched components.

    .. math:: \min_\pi \sum_j w_j \lVert a_{\pi(j)} - b_j \rVert

    Args:
        a: Shape ``(K, *event)``, e.g. means.
        b: Those of the reference, shape ``(J, *event)`` with J at most K.
        weights: w, how much each component of the reference counts, shape ``(J,)``; they sum to 1. All alike if None.
            Give the mixture's own, or a component that holds a single datum counts as much as the largest.

    Returns:
        A 0-dim tensor, in the units of the data; 0 where a is b in another order.

    Raises:
        ValueError: As `match_components`; or if there is not one weight for each component.

    >>> matched_distance(torch.tensor([[5.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [5.0, 2.0]]))
    tensor(1.)
    """
    cost = pairwise_distances(a, b)
    share = cost.new_full((len(b),), 1 / len(b)) if weights is None else weights.to(cost)
    if share.shape != (len(b),):
        raise ValueError(f"matched_distance got weights of shape {tuple(share.shape)} for {len(b)} components.")
    cost = cost * share
    return cost.gather(0, match_components(cost)[None]).sum()
