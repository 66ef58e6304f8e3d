# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of every flow: an invertible map with parameters, its own or computed from a context."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from pyro.distributions import TransformModule
from pyro.distributions.conditional import ConditionalTransform
from torch import Tensor
from torch.distributions import constraints

from pyro_dgm.nn.full_precision import full_precision
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.check_event import check_event, titled
from pyro_dgm.transforms.conditioned import Conditioned
from pyro_dgm.transforms.module_tree import module_tree
from pyro_dgm.transforms.one_pass import OnePass

if TYPE_CHECKING:
    from pyro_dgm.transforms.invert import Invert

Size = int | tuple[int, ...]
"""A number of elements, or a shape."""

Parameters = tuple[Any, ...]
"""Tensors (or nested tuples of them) that broadcast with x: what a formula needs beside x."""

Pull = Callable[[tuple[Tensor, Tensor], tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Goes backward from a value and a log-determinant: gives the gradients of some tensors, and keeps the parameters'."""


class FlowTransform(OnePass, TransformModule, ConditionalTransform):
    """An invertible map of events of one shape to events of as many elements, learned or amortised.

    *Learned* (no ``context_dim``): a module for `TransformedDistribution`. *Amortised* (``context_dim=H``): one set of
    parameters for each datum, computed once from a context of shape ``(*batch, H)`` by :meth:`condition`, for
    `ConditionalTransformedDistribution`. Sampling runs forward, scoring runs the inverse.

    To write a flow: call ``super().__init__(dim, context_dim=context_dim)``, then make modules and parameters, and
    implement :meth:`bind` and two pure functions of x and what it gives, :meth:`_forward_and_logdet` and
    :meth:`_inverse_and_logdet`, in which rows do not know of one another.

    Args:
        shape: The dimension D, or the shape of one event x, ``(C, H, W)`` for images.
        out_shape: Shape of one event y; None if it is that of x.
        context_dim: Size H of a context, or the shape of one, ``(H, height, width)`` for an image; None for a flow that
            has its own parameters.

    Attributes:
        shape: Shape of one x.
        out_shape: Shape of one y.
        context_shape: Shape of one context; None for a flow without.
        exact_inverse: Whether, up to rounding, either direction undoes the other for whatever it may get. A class that
            clamps, so that many inputs have one output, sets it to False; `Reversible` then keeps its input.

    Raises:
        ValueError: If a size is not positive, or at call if x, y or a context has the wrong shape.
    """

    exact_inverse = True

    def __init__(self, shape: Size, *, out_shape: Size | None = None, context_dim: Size | None = None) -> None:
        super().__init__(cache_size=1)
        self.shape = _sizes(self, "dim", shape)
        self.out_shape = self.shape if out_shape is None else _sizes(self, "out_shape", out_shape)
        self.context_dim = context_dim
        self.context_shape = None if context_dim is None else _sizes(self, "context_dim", context_dim)
        if math.prod(self.shape) != math.prod(self.out_shape):
            raise ValueError(
                f"{type(self).__name__} got shape={self.shape} and out_shape={self.out_shape}: an invertible map gives "
                f"as many elements as it takes."
            )
        if len(self.shape) > 1:
            self.domain = constraints.independent(constraints.real, len(self.shape))
        if len(self.out_shape) > 1:
            self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    @property
    def dim(self) -> int:
        """Size of the last dimension of an event."""
        return self.shape[-1]

    @abstractmethod
    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the parameters from a context ``(*batch, context_dim)``; with None, give the flow's own."""

    @abstractmethod
    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Map x, shape ``(*batch, *shape)``, to y; with log|det dy/dx|, shape ``(*batch)``, in nats."""

    @abstractmethod
    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Map y back to x; with log|det dx/dy|."""

    def _steps(self, parameters: Parameters, *, inverse: bool) -> Iterator[tuple["FlowTransform", Parameters, bool]]:
        """Give the flows that are run one after the other, with their parameters and whether they run backwards."""
        yield self, parameters, inverse

    def _retrace(self, y: Tensor, parameters: Parameters, pull: Pull, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Find x from y without a graph, map it again with one, and pull the gradients back; for `Reversible`.

        With ``inverse``, y is what the inverse gave. Returns x and its gradient.
        """
        ways = [self._forward_and_logdet, self._inverse_and_logdet]
        there, back = reversed(ways) if inverse else ways
        with torch.no_grad():
            x = back(y, parameters)[0].detach()
        (grad,) = pull(there(x.requires_grad_(), parameters), (x,))
        return x.detach(), grad

    @full_precision
    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x, shape ``(*batch, *shape)``, to y; with log|det dy/dx|, shape ``(*batch)``, in nats."""
        self._check(x)
        return self._forward_and_logdet(x, self._own())

    @full_precision
    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map y, shape ``(*batch, *out_shape)``, back to x; with log|det dx/dy|, shape ``(*batch)``, in nats."""
        self._check(y, back=True)
        return self._inverse_and_logdet(y, self._own())

    @full_precision
    def condition(self, context: Tensor) -> Conditioned:
        """Compute every datum's parameters from its context.

        Args:
            context: Floating point tensor of shape ``(*batch, context_dim)``, or ``(*batch, *context_dim)``.

        Returns:
            A transform for `TransformedDistribution`, whose base it expands to ``batch``.

        Raises:
            ValueError: If the flow takes no context, or the context is of the wrong size.
        """
        if self.context_shape is None:
            size = context.shape[-1] if context.dim() else 1
            raise ValueError(
                f"{titled(self)} has its own parameters and takes no context: build it with "
                f"context_dim={size}. Beside flows that take one, put it into a Compose with them: there it is let be."
            )
        needed = self.context_shape
        if context.shape[-len(needed) :] != needed or not context.is_floating_point():
            last = f"its last size {needed[0]}" if len(needed) == 1 else f"its last sizes {needed}"
            raise ValueError(
                f"{titled(self, context=True)} got a context of shape {tuple(context.shape)} and dtype "
                f"{context.dtype}: it must be floating point, {last}."
            )
        return Conditioned(self, context)

    @property
    def inv(self) -> "Invert":
        """The inverse flow, a module with the same parameters."""
        from pyro_dgm.transforms.invert import Invert

        return Invert(self)

    def with_cache(self, cache_size: int = 1) -> Self:
        """Give the same flow, of the same parameters, with (1) or without (0) a memory of the last pair."""
        if cache_size == self._cache_size:
            return self
        if cache_size not in (0, 1):
            raise ValueError(f"{type(self).__name__}.with_cache got cache_size={cache_size}: it must be 0 or 1.")
        new = copy.copy(self)
        new._cache_size = cache_size
        return new

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Give the shape of y for that of x."""
        return self._replaced(shape, self.shape, self.out_shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Give the shape of x for that of y."""
        return self._replaced(shape, self.out_shape, self.shape)

    def _weights(self) -> Iterator[Tensor]:
        """The parameters; torch's own iterator is slower, as it looks for those in several places."""
        return (weight for module in module_tree(self) for weight in module._parameters.values() if weight is not None)

    def tensors(self) -> Iterable[Tensor]:
        """Give the parameters and buffers."""
        tensors = (t for m in module_tree(self) for t in (*m._parameters.values(), *m._buffers.values()))
        return (tensor for tensor in tensors if tensor is not None)

    def modes(self) -> Iterable[bool]:
        """Tell of the flow and each module in it whether it is in training."""
        return (module.training for module in module_tree(self))

    def __hash__(self) -> int:
        return TransformModule.__hash__(self)

    def __repr__(self) -> str:
        context = "" if self.context_dim is None else f", context_dim={self.context_dim}"
        shape, out_shape = (sizes[0] if len(sizes) == 1 else sizes for sizes in (self.shape, self.out_shape))
        return f"{type(self).__name__}({shape if shape == out_shape else f'{shape} -> {out_shape}'}{context})"

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 -- torch's signature
        self.clear_cache()
        return super()._apply(fn, recurse)

    def _own(self) -> Parameters:
        if self.context_dim is not None:
            raise ValueError(
                f"{titled(self, context=True)} takes its parameters from a context: use flow.condition(context), "
                f"or a ConditionalTransformedDistribution and its condition()."
            )
        return self.bind(None)

    def _replaced(self, shape: tuple[int, ...], old: tuple[int, ...], new: tuple[int, ...]) -> torch.Size:
        """Exchange the shape of an event. Where the two are equal, stock distributions broadcast it, and say so."""
        if old != new and tuple(shape[-len(old) :]) != old:
            raise ValueError(
                f"{titled(self)} got a value or a distribution of shape {tuple(shape)}: its last sizes must be {old}."
            )
        return torch.Size(shape) if old == new else torch.Size((*shape[: len(shape) - len(old)], *new))

    def _check(self, x: Tensor, *, back: bool = False) -> None:
        check_event(self, x, back=back)


def _sizes(owner: object, name: str, sizes: Size) -> tuple[int, ...]:
    return positive_shape(owner, name, (sizes,) if isinstance(sizes, int) else sizes)
