# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Several flows of one kind in a row, with the elements in another order before each."""

from collections.abc import Callable
from typing import Literal, get_args

import torch

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.coupling import Coupling
from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.make_flow import make_flow
from pyro_dgm.transforms.masks import IndexMask
from pyro_dgm.transforms.permute import Permute

Between = Literal["reverse", "random", "lu"]


class Stack(Compose):
    """Make flows by a factory and apply them one after the other.

    Autoregressive flows and couplings treat the elements of a vector unequally: between two of them the order is
    turned round (Kingma et al. 2016), shuffled, or mixed by a learned matrix (Durkan et al. 2019). Planar and Sylvester
    flows need nothing between them, and are faster as one flow with a ``depth`` of its own.

    Args:
        dim: Dimension D.
        flow: Makes a flow from ``dim``, and ``context_dim`` by keyword if there is one: a class, or
            `functools.partial` of one to set its options. The default is for guides; `MaskedAutoregressive` and
            `SplineCoupling` are for data.
        depth: Number of flows that it makes.
        between: What stands between two flows: ``"reverse"``, a ``"random"`` permutation, which is in the state_dict,
            ``"lu"``, which is a random permutation times a learned matrix that starts as the identity, or None. With
            ``"reverse"`` or None, couplings of some masks would leave the same elements unchanged for ever: an error.
        context_dim: Size H of a context, which goes to every flow; the permutations and matrices between take none.

    Raises:
        ValueError: If depth is not positive, ``between`` is unknown, ``flow`` makes something else than a flow of D
            elements, or there are elements that no flow changes.

    Source: Kingma et al. (NeurIPS 2016), arXiv:1606.04934, section 4 and algorithm 1; Durkan et al. (NeurIPS 2019),
    arXiv:1906.04032, for ``"lu"``.

    Example:
        >>> from functools import partial
        >>> from pyro_dgm.transforms import AffineCoupling
        >>> flow = Stack(4, flow=partial(AffineCoupling, bound=1.0), depth=3, between="random", context_dim=2)
        >>> len(flow.flows)
        5
        >>> flow.condition(torch.randn(10, 2))(torch.randn(10, 4)).shape
        torch.Size([10, 4])
    """

    def __init__(
        self,
        dim: int,
        *,
        flow: Callable[[int], FlowTransform] = InverseAutoregressive,
        depth: int = 4,
        between: Between | None = "reverse",
        context_dim: int | None = None,
    ) -> None:
        (depth,) = positive_shape(self, "depth", (depth,))
        if between is not None and between not in get_args(Between):
            raise ValueError(f"Stack got between={between!r}: it must be {', '.join(get_args(Between))} or None.")
        flows = [make_flow(self, flow, dim, context=context_dim)]
        for _ in range(depth - 1):
            flows += [] if between is None else [_mix(dim, between)]
            flows += [make_flow(self, flow, dim, context=context_dim)]
        super().__init__(flows)
        if between in (None, "reverse") and (same := _unchanged(flows, dim)):
            raise ValueError(
                f"Stack(dim={dim}) with between={between!r} and couplings of these masks never changes the elements "
                f"{same}: set between='random' or 'lu', or a mask that the reversal moves, as that of the first half."
            )


def _unchanged(flows: list[FlowTransform], dim: int) -> list[int]:
    """List the elements that none of two or more couplings changes."""
    if len(flows) < 2 or not all(isinstance(flow, Coupling | Permute) for flow in flows):
        return []
    places, left = torch.arange(dim), torch.ones(dim, dtype=torch.bool)
    for flow in flows:
        if isinstance(flow, Coupling) and isinstance(flow.mask, IndexMask):
            left[places[flow.mask.moved]] = False
        elif isinstance(flow, Permute):
            places = places[flow.order]
    return left.nonzero().flatten().tolist()


def _mix(dim: int, between: Between) -> FlowTransform:
    if between == "lu":
        return LULinear(dim, start="permutation")
    return Permute.reverse(dim) if between == "reverse" else Permute.random(dim)
