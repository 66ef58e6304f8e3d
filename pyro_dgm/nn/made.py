# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A network whose output for a dimension sees the dimensions before it only: MADE."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from pyro_dgm.nn.masked_linear import MaskedLinear
from pyro_dgm.nn.mixed_precision import mixed_precision
from pyro_dgm.nn.shape import positive_shape


class MADE(nn.Module):
    r"""Compute ``outputs`` numbers for each dimension, from the dimensions that precede it in an order.

    Every hidden unit has a degree m, how many of the first dimensions it may see, and sees units of degree m at most.
    Degrees are spread evenly and ascend with a unit's index, up to D - 1, so that all dimensions but the last are seen
    even by layers narrower than D. Units of degree 0, constant but for the context, exist if there is a context.
    A context reaches every layer: one linear map turns it into the biases of all of them.

    Args:
        dim: Number of dimensions D.
        outputs: How many numbers each dimension gets.
        hidden: Widths of the hidden layers. ``()`` makes an affine map.
        order: The dimensions from first to last; None for 0 to D - 1.
        context_dim: Size H of a context; None for none.
        activation: Nonlinearity after every hidden layer; it acts on each number alone and has no parameters.
        last_scale: Factor on the initial weights of the last layer, whose biases start as zeros; a small
            one starts every output near zero, and training more slowly.

    Raises:
        ValueError: If a size is not positive, the order is no permutation, the activation has parameters, or at call
            if x or the context has the wrong shape.

    Source: Germain et al. (ICML 2015), arXiv:1502.03509, section 4. The paper draws degrees at random.

    Example:
        >>> net = MADE(3, 2, order=[2, 0, 1])
        >>> torch.autograd.functional.jacobian(net, torch.randn(3)).ne(0).any(1).int()
        tensor([[0, 0, 1],
                [1, 0, 1],
                [0, 0, 0]], dtype=torch.int32)
    """

    sequence: Tensor
    ranks: Tensor

    def __init__(
        self,
        dim: int,
        outputs: int,
        *,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        context_dim: int | None = None,
        activation: type[nn.Module] = nn.ReLU,
        last_scale: int | float = 1.0,
    ) -> None:
        super().__init__()
        (self.dim,), (self.outputs,) = positive_shape(self, "dim", (dim,)), positive_shape(self, "outputs", (outputs,))
        self.order = self._checked(order)
        self.context_dim = context_dim
        self.register_buffer("sequence", torch.tensor(self.order), persistent=False)
        self.register_buffer("ranks", torch.tensor(self.order).argsort(), persistent=False)
        rank = {dimension: i for i, dimension in enumerate(self.order)}
        lowest = 0 if context_dim is not None or dim == 1 else 1
        self.degrees = [_spread(width, lowest, dim) for width in positive_shape(self, "hidden", hidden)]
        self.starts = [[bisect_left(degrees, t) for t in range(dim + 2)] for degrees in self.degrees]
        first, last = [rank[i] + 1 for i in range(dim)], [rank[i] for i in range(dim) for _ in range(outputs)]
        self.widths = [len(degrees) for degrees in (*self.degrees, last)]
        self.layers = nn.ModuleList([MaskedLinear(n, m) for n, m in pairwise([first, *self.degrees, last])])
        self.activation = activation()
        if next(self.activation.parameters(), None) is not None:
            raise ValueError(
                f"{type(self).__name__} got activation={activation.__name__}, which has parameters: it must have none."
            )
        if context_dim is not None:
            (context_dim,) = positive_shape(self, "context_dim", (context_dim,))
            self.context = nn.Linear(context_dim, sum(self.widths), bias=False)
        self._start_small(last_scale)

    @property
    def linear(self) -> tuple[MaskedLinear, ...]:
        """The layers, from first to last."""
        return cast(tuple[MaskedLinear, ...], tuple(self.layers))

    def biases(self, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give the bias of every layer: the network's own, or one for each context.

        Args:
            context: Shape ``(*batch, context_dim)``; None for a network that takes none.

        Returns:
            For each layer a tensor of shape ``(width)``, or ``(*batch, width)``.

        Raises:
            ValueError: If there is a context and none is taken, or the other way round, or its size is wrong.
        """
        got = None if context is None else context.shape[-1] if context.dim() else 0
        if got != self.context_dim:
            raise ValueError(
                f"{type(self).__name__}(dim={self.dim}, context_dim={self.context_dim}) got a context of size {got}: "
                f"the two must agree."
            )
        own = tuple(layer.bias for layer in self.linear)
        if context is None:
            return own
        return tuple(b + c for b, c in zip(own, self._shifts(context).split(self.widths, -1), strict=True))

    @mixed_precision
    def _shifts(self, context: Tensor) -> Tensor:
        return self.context(context)

    def forward(self, x: Tensor, biases: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the numbers of every dimension.

        Args:
            x: Shape ``(*batch, dim)``.
            biases: What :meth:`biases` gave; their leading dimensions broadcast with those of x. None for a network
                without context.

        Returns:
            Tensor of shape ``(*batch, dim, outputs)``.

        Raises:
            ValueError: If the last size of x is not ``dim``.
        """
        if x.shape[-1:] != (self.dim,):
            raise ValueError(
                f"{type(self).__name__}(dim={self.dim}) got x of shape {tuple(x.shape)}: its last size must be "
                f"{self.dim}."
            )
        return self.trace(x, self.biases() if biases is None else biases)[-1].unflatten(-1, (self.dim, self.outputs))

    def trace(self, x: Tensor, biases: Sequence[Tensor], weights: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Give what every layer computes, before the activation, with other weights if some are given."""
        values: list[Tensor] = []
        for i, (layer, bias) in enumerate(zip(self.linear, biases, strict=True)):
            x = layer(self.activation(values[-1]) if values else x, bias, None if weights is None else weights[i])
            values.append(x)
        return values

    def _checked(self, order: Sequence[int] | None) -> tuple[int, ...]:
        dims = tuple(range(self.dim))
        order = dims if order is None else tuple(order)
        if tuple(sorted(order)) != dims:
            raise ValueError(
                f"{type(self).__name__}(dim={self.dim}) got order={list(order)}: it must name each of 0 to "
                f"{self.dim - 1} once, as range({self.dim}) or torch.randperm({self.dim}).tolist() do."
            )
        return order

    @torch.no_grad()
    def _start_small(self, scale: int | float) -> None:
        last = self.linear[-1]
        last.weight.mul_(scale)
        last.bias.zero_()
        if self.context_dim is not None:
            self.context.weight[-last.out_features :].mul_(scale)


def _spread(width: int, lowest: int, dim: int) -> list[int]:
    """Spread degrees from ``lowest`` to ``dim - 1`` evenly over ``width`` units; the last always has the highest."""
    return [lowest - (-(unit + 1) * (dim - lowest) // width) - 1 for unit in range(width)]
