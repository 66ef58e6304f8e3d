# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
r"""An autoregressive map solved one dimension after the other, every unit of its network computed once.

To solve :math:`w_i = P(v_i; r_i(v_{<i}))` for v, the numbers r of an element need the elements before it. Run naively
that is one pass of the network for each dimension. But a hidden unit of degree m sees the first m elements only, so it
can be computed for good as soon as these are known: all D dimensions together take the arithmetic of one pass. The
gradient of the solution solves a triangular system, which is the same thing run backwards through the network: the
adjoint of a unit is known as soon as those of the elements that it reaches are. Both are one function, `sweep`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_dgm.nn.made import MADE
from pyro_dgm.transforms.sweep import sweep

Map = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""An elementwise map: x and raw numbers to y and log dy/dx."""


def one_by_one(
    net: MADE, solve: Map, w: Tensor, biases: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Compute ``v_i, l_i = solve(w_i, net(v)_i)`` for one dimension i after the other.

    Args:
        net: The network.
        solve: Map of one element.
        w: Shape ``(*batch, dim)``.
        biases: Those of the network's layers; their leading dimensions broadcast with w.
        weights: Those of the network's layers.

    Returns:
        v, shape ``(*batch, dim)``, and the sum of the l, shape ``(*batch)``.
    """
    batch, dim = w.shape[:-1], net.dim
    dims = range(dim + 1)
    ends = [dims, *net.starts, [t * net.outputs for t in dims]]
    columns = [_rows(bias.expand(*batch, bias.shape[-1])) for bias in biases]
    columns[-1] = _sorted(net, columns[-1])
    elements = _sorted(net, _rows(w)).unbind()
    logdets = []

    def activate(_level: int, _first: int, z: Tensor) -> Tensor:
        return net.activation(z)

    def step(t: int, raw: Tensor) -> Tensor:
        v, logdet = solve(elements[t], raw.t())
        logdets.append(logdet)
        return v.unsqueeze(0)

    v = sweep(_weights(net, weights), columns, ends, activate, step)
    return _back(net, v).reshape(w.shape), torch.stack(logdets).sum(0).reshape(batch)


class Solve(torch.autograd.Function):
    r"""Solve an autoregressive map for what its network sees, with gradients by the implicit function theorem.

    With :math:`w = P(v; r(v))`, J its Jacobian and g the gradient that reaches v, also through the log-determinant,
    the gradient of w is :math:`\lambda` with :math:`J^\top \lambda = g`, and that of r is
    :math:`-\lambda\, \partial P/\partial r`: exact, by back-substitution. First order only.
    """

    @staticmethod
    def forward(ctx: Any, net: MADE, there: Map, back: Map, w: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Solve ``there(v, net(v)) = w``, with the inverse map ``back``; ``tensors`` are the biases and the weights."""
        layers = len(net.degrees) + 1
        v, logdet = one_by_one(net, back, w, tensors[:layers], tensors[layers:])
        ctx.net, ctx.map = net, there
        ctx.save_for_backward(v, *tensors)
        return v, logdet

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_v: Tensor, grad_logdet: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of w, the biases and the weights."""
        net: MADE = ctx.net
        layers = len(net.degrees) + 1
        v, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[4:]
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
            *hidden, last = net.trace(v, leaves[:layers], leaves[layers:])
            v, raw = v.detach().requires_grad_(), last.detach().requires_grad_()
            w, logdet = ctx.map(v, raw.unflatten(-1, (net.dim, net.outputs)))
        through_logdet = -grad_logdet.unsqueeze(-1).expand_as(logdet)  # that of the solution is minus that of the map
        more_v, grad_raw = _grad(logdet, (v, raw), through_logdet)
        (w_raw,) = _grad(w, (raw,), torch.ones_like(w))
        slopes = [_slope(net.activation, z) for z in hidden]
        grad_w, grad_raw = _backwards(
            net, tensors[layers:], slopes, grad_v + more_v, logdet.detach().exp(), w_raw, grad_raw
        )
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(_grad(last, wanted, grad_raw) if wanted else ())
        return None, None, None, grad_w, *(next(found) if need else None for need in needed)


def _backwards(
    net: MADE,
    weights: Sequence[Tensor],
    slopes: Sequence[Tensor],
    grad_v: Tensor,
    w_v: Tensor,
    w_raw: Tensor,
    grad_raw: Tensor,
) -> tuple[Tensor, Tensor]:
    """Substitute backwards, from the last dimension to the first: the gradients of w and of the raw numbers."""
    dim, size = net.dim, net.outputs
    dims = range(dim + 1)
    hidden = [[starts[-1] - starts[dim + 1 - t] for t in dims] for starts in reversed(net.starts)]
    ends = [[t * size for t in dims], *hidden, dims]
    grads, steep = (_sorted(net, _rows(x)).flip(0).unbind() for x in (grad_v, w_v))
    shape = (dim, size, len(grads[0]))
    moves, extra = (_sorted(net, _rows(x)).flip(0).reshape(shape).unbind() for x in (w_raw, grad_raw))
    factors = [_rows(slope).flip(0) for slope in reversed(slopes)]
    solution = []

    def activate(level: int, first: int, z: Tensor) -> Tensor:
        return z * factors[level].narrow(0, first, len(z))

    def step(t: int, z: Tensor) -> Tensor:
        solution.append((grads[t] + z[0]) / steep[t])
        return extra[t] - moves[t] * solution[t]

    transposed = [weight.t().flip(0, 1) for weight in reversed(_weights(net, weights))]
    zeros = [grads[0].new_zeros(1, 1).expand(len(weight), len(grads[0])) for weight in transposed]
    raw = sweep(transposed, zeros, ends, activate, step)
    return (
        _back(net, torch.stack(solution).flip(0)).reshape(grad_v.shape),
        _back(net, raw.flip(0)).reshape(grad_raw.shape),
    )


def _grad(outputs: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, inputs, grad, retain_graph=True, allow_unused=True, materialize_grads=True)


def _slope(activation: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The derivative of an elementwise function."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = activation(z)
    return _grad(value, (z,), torch.ones_like(value))[0]


def _rows(x: Tensor) -> Tensor:
    """Turn ``(*batch, size)`` into (size, N)."""
    return x.reshape(-1, x.shape[-1]).t().contiguous()


def _back(net: MADE, rows: Tensor) -> Tensor:
    """Turn (dim * k, N), in the network's order, into (N, dim * k) in that of the elements."""
    return _sorted(net, rows, inverse=True).t()


def _sorted(net: MADE, rows: Tensor, *, inverse: bool = False) -> Tensor:
    """Sort the first dimension, k rows for each element, by the network's order, or back."""
    if net.order == tuple(range(net.dim)):
        return rows
    index = net.ranks if inverse else net.sequence
    groups = rows.reshape(net.dim, len(rows) // net.dim, rows.shape[1])
    return groups.index_select(0, index).reshape(rows.shape)


def _weights(net: MADE, weights: Sequence[Tensor]) -> list[Tensor]:
    """Sort the inputs of the first layer and the outputs of the last."""
    weights = list(weights)
    weights[-1] = _sorted(net, weights[-1])
    weights[0] = _sorted(net, weights[0].t()).t()
    return weights
