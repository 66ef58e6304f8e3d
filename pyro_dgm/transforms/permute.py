# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A fixed permutation of the elements of a vector, which lets the next flow see them in another order."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters


class Permute(FlowTransform):
    r"""Put the elements into another order; no volume changes.

    .. math:: y_i = x_{o_i}, \qquad \log|\det J| = 0

    The order is a buffer: it is in the state_dict and moves with the module.

    Args:
        order: The numbers 0 ... D - 1 in the order in which the elements come out; its length is the dimension.

    Raises:
        ValueError: If the order lacks a number.

    Example:
        >>> Permute([2, 0, 1])(torch.tensor([10.0, 11.0, 12.0]))
        tensor([12., 10., 11.])
        >>> Permute.reverse(3)(torch.tensor([10.0, 11.0, 12.0]))
        tensor([12., 11., 10.])
    """

    order: Tensor
    places: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        if sorted(order) != list(range(len(order))) or not order:
            raise ValueError(
                f"Permute got order={list(order)}: it must hold each of 0 ... {max(len(order) - 1, 0)} once, as in "
                f"[2, 0, 1]. Its length is the dimension. Permute.reverse(dim) and Permute.random(dim) make one."
            )
        super().__init__(len(order))
        self.register_buffer("order", torch.tensor([int(index) for index in order]))
        self.register_buffer("places", self.order.argsort(), persistent=False)

    @classmethod
    def reverse(cls, dim: int) -> Self:
        """Make the permutation that turns the order round."""
        return cls(range(dim - 1, -1, -1))

    @classmethod
    def random(cls, dim: int) -> Self:
        """Draw a permutation, all equally probable, by torch's random numbers."""
        return cls(torch.randperm(max(dim, 0), device="cpu").tolist())

    def bind(self, context: Tensor | None) -> Parameters:
        """Give nothing: the order is the same for all data."""
        return ()

    def reorder(self, x: Tensor) -> Tensor:
        """Put the elements of the last dimension into the order."""
        return x.index_select(-1, self.order)

    def restore(self, y: Tensor) -> Tensor:
        """Put them back."""
        return y.index_select(-1, self.places)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return self.reorder(x), x.new_zeros(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return self.restore(y), y.new_zeros(y.shape[:-1])

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- torch's signature
        super()._load_from_state_dict(*args, **kwargs)
        places = self.order.argsort()
        if self.places.is_meta:  # the order may have been put in place of one without memory
            self.places = places
        else:
            self.places.copy_(places)
