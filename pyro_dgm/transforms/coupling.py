# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of couplings: some elements pass through unchanged, and say how the others are mapped."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dgm.nn.mlp import MLP
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.start_small import last_linear

Shape = tuple[int, ...]
CouplingNet = Callable[[Shape, Shape], nn.Module]
"""Makes the network from the shape of what it sees and the shape of the raw numbers that it gives."""


class Coupling(FlowTransform):
    r"""Map the elements outside a mask by increasing functions whose raw numbers a network computes from those inside.

    .. math:: y_A = x_A, \qquad y_i = E(x_i; r_i(x_A, h)) \text{ for } i \notin A,
              \qquad \log|\det J| = \sum_{i \notin A} \log E'(x_i; r_i)

    Both directions are one pass. The last layer of the network starts as zeros, where it is an `nn.Linear`, so that a
    new coupling is the identity (or nearly: whatever raw zeros mean to E).

    Args:
        dim: Number of dimensions D.
        elementwise: The map E of one element.
        context_dim: Size H of a context h, which the network sees beside the elements; None for none.
        mask: For each dimension, whether it passes through unchanged. None: the first half does, the smaller one of
            an odd number, so that a reversal of the order moves every element.
        net: Makes the network, called as ``net((kept + H,), (D - kept, size))`` with the number of elements that are
            kept and the number of raw numbers that an element needs; `functools.partial` sets its options.

    Raises:
        ValueError: If a size is not positive, or the mask has the wrong length, keeps everything, or keeps nothing
            where there is no context either.
    """

    kept: Tensor
    moved: Tensor
    back: Tensor

    def __init__(
        self,
        dim: int,
        elementwise: Elementwise,
        *,
        context_dim: int | None = None,
        mask: Sequence[bool] | None = None,
        net: CouplingNet = MLP,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        mask = self._checked(mask)
        kept, moved = ([i for i in range(dim) if mask[i] is side] for side in (True, False))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long))  # the mask is in the state_dict, as indices
        self.register_buffer("moved", torch.tensor(moved, dtype=torch.long))
        self.register_buffer("back", torch.tensor(kept + moved).argsort())
        self.ordered = kept + moved == list(range(dim))
        self.elementwise = elementwise
        self.net = net((len(kept) + (self.context_dim or 0),), (len(moved), elementwise.size))
        self._start_as_identity(len(moved) * elementwise.size)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give the context as it is: the network sees it together with the elements that are kept."""
        return () if context is None else (context,)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        kept, moved, raw = self._split(x, parameters)
        return self._join(kept, *self.elementwise.forward_and_logdet(moved, raw))

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        kept, moved, raw = self._split(y, parameters)
        return self._join(kept, *self.elementwise.inverse_and_logdet(moved, raw))

    def _split(self, x: Tensor, context: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        if self.ordered:
            kept, moved = x.split([len(self.kept), len(self.moved)], -1)
        else:
            kept, moved = x.index_select(-1, self.kept), x.index_select(-1, self.moved)
        seen = torch.cat([kept, *(h.expand(*x.shape[:-1], -1) for h in context)], -1) if context else kept
        return kept, moved, self.net(seen)

    def _join(self, kept: Tensor, moved: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([kept, moved], -1)
        return y if self.ordered else y.index_select(-1, self.back), logdet.sum(-1)

    def _checked(self, mask: Sequence[bool] | None) -> list[bool]:
        name = f"{type(self).__name__}(dim={self.dim})"
        first_half = [i < self.dim // 2 for i in range(self.dim)]
        values = first_half if mask is None else [bool(value) for value in mask]
        example = f"as in mask=[i % 2 == 0 for i in range({self.dim})]"
        example = example if self.dim > 1 else "as in mask=[False] together with a context_dim"
        if len(values) != self.dim:
            raise ValueError(
                f"{name} got a mask of {len(values)} values: it needs {self.dim}, one for each dimension, {example}."
            )
        if all(values):
            raise ValueError(
                f"{name} got a mask that leaves nothing to transform: True passes an element through unchanged, so at "
                f"least one value must be False, {example}."
            )
        if not any(values) and self.context_dim is None:
            raise ValueError(
                f"{name} got a mask that leaves nothing to condition on: at least one value must be True, or there "
                f"must be a context, {example}."
            )
        return values

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- torch's signature
        super()._load_from_state_dict(*args, **kwargs)
        self.ordered = bool((self.back[1:] > self.back[:-1]).all())

    @torch.no_grad()
    def _start_as_identity(self, outputs: int) -> None:
        linear = last_linear(self.net)
        if linear is not None and linear.out_features == outputs:
            for parameter in linear.parameters():
                parameter.zero_()
