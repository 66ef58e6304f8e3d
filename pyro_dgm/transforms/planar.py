# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Planar flow: bend space along one direction, or along one after the other."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.activation import ACTIVATIONS, Activation
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.solve import attach_gradients, solve_increasing, solve_tanh

BLOCK = 8  # maps whose projections are found together: fewer products, but more work in each


class Planar(FlowTransform):
    r"""Add a direction, times a smooth function of the projection on another.

    .. math:: y = x + \hat u\, h(w^T x + b), \qquad \log|\det J| = \log(1 + c\, h'(w^T x + b)), \quad c = w^T \hat u

    ``depth`` such maps in a row have stacked parameters, and their log-determinants are taken at once.

    Any smooth h whose slope is bounded will do. :math:`1 + c\,h' > 0` holds by construction: u is moved along w,
    :math:`\hat u = u + (m(w^T u) - w^T u)\, w / |w|^2`, where

    .. math:: m(a) = (e^{s a} - 1) / s \;\text{ if } s a < 0 \text{ for a bound s of } h', \text{ else } a.

    For tanh, sigmoid and the like, u is thus moved only if it points against w; the determinant is then
    :math:`e^{w^T u}` where tanh is steepest. This differs from the paper, whose :math:`m(a) = \log(1 + e^a) - 1` moves
    every u, by 1 / \|w\| near w = 0 and by 0 / 0 at it, where a context network begins that is initialised with zeros.
    Here value and gradients stay finite. ``w^T u`` counts as no less than the smallest that leaves ``1 + c h'``
    positive in its dtype: -87 for tanh in float32.

    The inverse is one scalar equation for each map, :math:`z + c\,h(z) = w^T y + b`, by :func:`solve_tanh` or
    :func:`solve_increasing`, accurate to rounding divided by the slope of its left side.

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        depth: Number of maps K.
        activation: h: a name, or a function with its slope and bounds.
        context_net: Makes the network that gives all K (2 D + 1) parameters.

    Raises:
        ValueError: If a size is not positive, or the activation has no such name.
        ConvergenceError: In the inverse, if the activation is not tanh and y is not finite or the bounds not true.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770, eqs. 10-12 and appendix A.1.

    Example:
        >>> flow = Planar(3, depth=4)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        depth: int = 1,
        activation: Literal["arctan", "elu", "sigmoid", "sine", "softplus", "tanh"] | Activation = "tanh",
        context_net: ContextNet = nn.Linear,
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        (depth,) = positive_shape(self, "depth", (depth,))
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ValueError(
                f"Planar(dim={dim}) got activation={activation!r}: it must be one of {sorted(ACTIVATIONS)}, or an "
                f"Activation with a function, its slope and the bounds of the slope."
            )
        self.activation = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        bound = dim**-0.5  # so that w^T x is of size 1
        initial = {
            "w": torch.empty(depth, dim).uniform_(-bound, bound),
            "u": torch.empty(depth, dim).uniform_(-bound, bound),
            "b": torch.zeros(depth),
        }
        self.values = FlowParameters(initial, context_dim, context_net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give w and u-hat, shape ``(*batch, K, D)``; b, c, and the determinants where h is least and most steep."""
        w, u, b = self.values(context)
        u, c, determinants = _constrain(w, u, self.activation)
        return w, u, b, c, determinants

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        w, u, b, _, determinants = parameters
        h = self.activation.value
        y, z = _in_blocks(x, w, u, b) if w.dim() == 2 and h is torch.tanh else _one_by_one(x, w, u, b, h)
        return y, self._logdet(z, determinants)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        w, u, b, c, determinants = parameters
        steps = []
        for k in reversed(range(w.shape[-2])):
            a = (y * w[..., k, :]).sum(-1) + b[..., k]
            z = self._solve(c[..., k], a, tuple(d[..., k] for d in determinants))
            y = y - self.activation.value(z).unsqueeze(-1) * u[..., k, :]
            steps.append(z)
        return y, -self._logdet(torch.stack(steps[::-1], -1), determinants)

    def _logdet(self, z: Tensor, determinants: tuple[Tensor, Tensor]) -> Tensor:
        return self._slope(z, determinants).log().sum(-1)

    def _slope(self, z: Tensor, determinants: tuple[Tensor, ...]) -> Tensor:
        """1 + c h'(z), as a sum of positives."""
        p, q = self.activation.shares(z)
        least, steepest = determinants
        return torch.addcmul(q if self.activation.least == 0 else q * least, p, steepest)

    def _solve(self, c: Tensor, a: Tensor, determinants: tuple[Tensor, ...]) -> Tensor:
        if self.activation.value is torch.tanh:
            return solve_tanh(c, a)

        least, steepest = determinants

        def function(z: Tensor) -> tuple[Tensor, Tensor]:
            """Give z + c h(z), arranged so that it still increases where h is linear and 1 + c h' below eps."""
            h = self.activation.value(z)
            falling = steepest * z + c * (h - self.activation.steepest * z)
            rising = least * z + c * (h - self.activation.least * z)
            return torch.where(c < 0, falling, rising), self._slope(z, determinants)

        return attach_gradients(function, solve_increasing(function, a), a)


def _constrain(w: Tensor, u: Tensor, activation: Activation) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    r"""Move u along w until :math:`1 + w^T u\, h' > 0` for every slope h' of an activation.

    Args:
        w: Shape ``(*batch, D)``.
        u: The same shape.
        activation: Has the bounds of the slope.

    Returns:
        u-hat; c = w^T u-hat, shape ``(*batch)``; and 1 + c h' for the least and the steepest slope, both positive.
    """
    least, steepest = activation.least, activation.steepest
    a = torch.linalg.vecdot(w, u)
    down, moved_down, at_steepest = _bounded(a.clamp_max(0), max(steepest, 0.0))
    up, moved_up, at_least = _bounded(a.clamp_min(0), min(least, 0.0))
    c = down + up
    at_steepest = at_steepest + steepest * up if steepest > 0 else 1 + steepest * c
    at_least = at_least + least * down if least < 0 else 1 + least * c if least > 0 else at_least
    along = (moved_down + moved_up) / torch.linalg.vecdot(w, w).clamp_min(torch.finfo(w.dtype).tiny)
    return torch.addcmul(u, along.unsqueeze(-1), w), c, (at_least, at_steepest)


def _bounded(a: Tensor, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """For s a <= 0 give m = (e^(s a) - 1) / s; m - a, precisely; and 1 + s m. With s = 0, m is a."""
    if s == 0:
        return a, torch.zeros_like(a), torch.ones_like(a)
    info = torch.finfo(a.dtype)
    e = (s * a).clamp_min(math.log(info.tiny))
    m = e.expm1() / s
    series = e * e / (2 * s - e * (2 * s / 3))  # for small e, where the difference would cancel; wrong by e^4 / 72
    return m, torch.where(e > -(info.eps**0.25), series, m - a), e.exp()


def _one_by_one(x: Tensor, w: Tensor, u: Tensor, b: Tensor, h: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Apply the K maps; give y and the z of each, shape ``(*batch, K)``."""
    steps = []
    for wk, uk, bk in zip(w.unbind(-2), u.unbind(-2), b.unbind(-1), strict=True):
        z = (x * wk).sum(-1) + bk
        x = torch.addcmul(x, h(z).unsqueeze(-1), uk)
        steps.append(z)
    return x, torch.stack(steps, -1)


def _in_blocks(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same for tanh with parameters that all rows share, by products of matrices, which is faster.

    The z of a block obey ``z = w^T x + b + h(z) G``, with G the part of ``u w^T`` above the diagonal, so that iterating
    makes the first k + 1 of them right after k rounds, exactly.
    """
    shape, x, steps = x.shape, x.reshape(-1, x.shape[-1]), []
    for wk, uk, bk in zip(w.split(BLOCK), u.split(BLOCK), b.split(BLOCK), strict=True):
        z = start = torch.addmm(bk, x, wk.mT)
        earlier = (uk @ wk.mT).triu(1)
        for _ in range(len(wk) - 1):
            z = torch.addmm(start, z.tanh(), earlier)
        x = torch.addmm(x, z.tanh(), uk)
        steps.append(z)
    return x.reshape(shape), torch.cat(steps, -1).reshape(*shape[:-1], len(w))
