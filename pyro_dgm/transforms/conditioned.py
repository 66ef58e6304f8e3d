# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow whose parameters were computed from a context: one set for each datum, computed once."""

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_dgm.nn.full_precision import full_precision
from pyro_dgm.transforms.one_pass import OnePass

if TYPE_CHECKING:
    from pyro_dgm.transforms.base import FlowTransform


class Conditioned(OnePass):
    """What ``flow.condition(context)`` gives: a transform that holds the parameters of every datum.

    It broadcasts like any parameter of a distribution: a base of another batch shape is expanded to that of the
    context by `TransformedDistribution`.

    Args:
        flow: An amortised flow.
        context: Shape ``(*batch, *context_shape)``.

    Raises:
        ValueError: At call, if the batch of x does not broadcast with that of the context.
    """

    def __init__(self, flow: "FlowTransform", context: Tensor) -> None:
        super().__init__(cache_size=flow._cache_size)
        self.flow = flow
        self.domain, self.codomain = flow.domain, flow.codomain
        self.batch_shape = context.shape[: context.dim() - len(flow.context_shape or ())]
        self.parameters = flow.bind(context)

    @full_precision
    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x to y, with log|det dy/dx|."""
        return self.flow._forward_and_logdet(self._expand(x), self.parameters)

    @full_precision
    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map y to x, with log|det dx/dy|."""
        return self.flow._inverse_and_logdet(self._expand(y, back=True), self.parameters)

    def tensors(self) -> Iterable[Tensor]:
        """Give the parameters of all data, and those that all data share."""
        return (*_flat(self.parameters), *self.flow.tensors())

    def modes(self) -> Iterable[bool]:
        """Tell of the flow and each module in it whether it is in training."""
        return self.flow.modes()

    def with_cache(self, cache_size: int = 1) -> "Conditioned":
        """Give the same transform with or without a memory of the last pair."""
        if cache_size == self._cache_size:
            return self
        new = copy.copy(self)
        new._cache_size = cache_size
        return new

    def forward_shape(self, shape: torch.Size | tuple[int, ...]) -> torch.Size:
        """Broadcast the batch of the shape of x with the context's; with the shape of an event y."""
        return self._batch(torch.Size(shape), back=False) + self.flow.out_shape

    def inverse_shape(self, shape: torch.Size | tuple[int, ...]) -> torch.Size:
        """Broadcast the batch of the shape of y with the context's; with the shape of an event x."""
        return self._batch(torch.Size(shape), back=True) + self.flow.shape

    def __repr__(self) -> str:
        return f"{self.flow}.condition(context of shape {(*self.batch_shape, *(self.flow.context_shape or ()))})"

    def _batch(self, shape: tuple, *, back: bool) -> torch.Size:
        batch = shape[: len(shape) - len(self.flow.out_shape if back else self.flow.shape)]
        try:
            return torch.broadcast_shapes(batch, self.batch_shape)
        except RuntimeError as error:
            raise ValueError(self._mismatch(shape)) from error

    def _expand(self, x: Tensor, *, back: bool = False) -> Tensor:
        self.flow._check(x, back=back)
        shape = self._batch(x.shape, back=back) + (self.flow.out_shape if back else self.flow.shape)
        return x if shape == x.shape else x.expand(shape)

    def _mismatch(self, shape: tuple) -> str:
        batch = tuple(self.batch_shape)
        return (
            f"{type(self.flow).__name__} was conditioned on a context of batch shape {batch}, and got a value of shape "
            f"{tuple(shape)}: its leading sizes must broadcast with {batch}. Give one context for each datum, or one "
            f"for all."
        )


def _flat(parameters: tuple[Any, ...]) -> Iterator[Tensor]:
    for parameter in parameters:
        if isinstance(parameter, tuple):
            yield from _flat(parameter)
        elif isinstance(parameter, Tensor):
            yield parameter
