# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A monotone spline of rational quadratics: it bends one number as finely as its bins are many."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_dgm.transforms.elementwise import Elementwise


@dataclass(frozen=True)
class RationalQuadratic(Elementwise):
    r"""Map ``[-bound, bound]`` onto itself by a spline through increasing knots; outside it is the identity.

    Between two knots, with :math:`\xi \in [0, 1]` the place of x in the bin, :math:`\theta` that of y, s the slope of
    the chord and :math:`\delta_0, \delta_1` the slopes at the knots,

    .. math::
        \theta = \frac{s \xi^2 + \delta_0\, \xi (1 - \xi)}{s + (\delta_0 + \delta_1 - 2 s)\, \xi (1 - \xi)}.

    The first ``bins`` raw numbers are logits of the widths, the next ``bins`` of the heights, the last ``bins - 1``
    belong to the slopes at the inner knots; the slope at both ends is 1, so that the derivative is continuous. Raw
    zeros are the identity, forward to the last bit.

    Two things differ from the paper, so that nothing gets so flat or steep that single precision cannot invert it. The
    slope at a knot is the harmonic mean of those of the two chords that meet there, times a factor within
    ``[1 / max_factor, max_factor]``, which is 1 for a raw zero (the paper's slope is ``1e-3 + softplus(raw)``). And
    ``min_bin`` is larger than its 1e-3. Measured on 200,000 numbers with the defaults, a round trip in float32 is off
    by 6e-4 at most at raw numbers from N(0, 1), by 8e-3 at N(0, 9), by 2e-2 anywhere in [-30, 30]; in float64 by 1e-10.

    Args:
        bins: Number of bins; 8 is the default of the authors' code, bayesiains/nsf.
        bound: Half the width of the interval. A standard normal variable is outside 5 once in 1.7 million times,
            outside the 3 of that code once in 370, that is in every sixth datum of 64 dimensions.
        min_bin: Smallest width and height of a bin, as a fraction of the interval.
        max_factor: Largest factor on the slope at a knot; the smallest is its reciprocal.

    Raises:
        ValueError: If there are fewer than two bins, they do not fit, or a limit is out of its range.

    Source: Durkan et al. (NeurIPS 2019), arXiv:1906.04032, section 3.1 and appendix A.

    Example:
        >>> spline = RationalQuadratic(bins=4)
        >>> spline.forward_and_logdet(torch.tensor([0.3, 7.0]), torch.zeros(2, spline.size))
        (tensor([0.3000, 7.0000]), tensor([0., 0.]))
    """

    bins: int = 8
    bound: int | float = 5.0
    min_bin: float = 1e-2
    max_factor: int | float = 10.0
    size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bins < 2 or not 0 < self.min_bin * self.bins < 1 or not self.bound > 0 or not self.max_factor > 1:
            raise ValueError(
                f"{self} cannot be: it needs bins >= 2, bound > 0, max_factor > 1 and 0 < min_bin < 1 / bins = "
                f"{1 / max(self.bins, 1):.3g}."
            )
        object.__setattr__(self, "size", 3 * self.bins - 1)

    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every element of x, shape ``(*batch)``, with raw ``(*batch, size)``: y and log dy/dx."""
        u = x.clamp(-self.bound, self.bound) / (2 * self.bound) + 0.5
        at = self._bin(u, raw, row=0)
        xi = ((u - at.left) / at.width).clamp(0, 1)
        s, rest = at.height / at.width, 1 - xi
        q = xi * rest
        denominator = s + (at.d0 + at.d1 - 2 * s) * q
        bend = at.height * q * ((at.d0 - s) * rest - (at.d1 - s) * xi) / denominator  # height * (theta - xi)
        moved = at.bottom - at.left + (at.height - at.width) * xi + bend  # y - x, in units of the interval
        numerator = torch.lerp(torch.lerp(at.d0, s, xi), torch.lerp(s, at.d1, xi), xi)
        logdet = (numerator * (s / denominator).square()).log()
        outside = x.abs() >= self.bound
        return x + torch.where(outside, 0.0, 2 * self.bound * moved), torch.where(outside, 0.0, logdet)

    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        r"""Map every element back: x and log dx/dy.

        With :math:`m = \delta_0 (1 - \theta) - \delta_1 \theta` the discriminant of the paper's quadratic equation is
        :math:`m^2 + 4 s^2 \theta (1 - \theta)`, a sum of squares, and its root is the derivative of y times the
        denominator above, over s. The solution is measured from the left knot where m is positive and from the right
        one where it is negative: then no term cancels another.
        """
        u = y.clamp(-self.bound, self.bound) / (2 * self.bound) + 0.5
        at = self._bin(u, raw, row=1)
        theta = ((u - at.bottom) / at.height).clamp(0, 1)
        s, rest = at.height / at.width, 1 - theta
        m = at.d0 * rest - at.d1 * theta
        root = (m.square() + 4 * s.square() * theta * rest).sqrt()
        near_left = m >= 0
        part = 2 * s * torch.where(near_left, theta, rest)
        part = part / (torch.where(near_left, m, -m) + part + root)
        xi = torch.where(near_left, part, 1 - part)
        denominator = s + (at.d0 + at.d1 - 2 * s) * xi * (1 - xi)
        x = 2 * self.bound * (at.left + at.width * xi - 0.5)
        outside = y.abs() >= self.bound
        return torch.where(outside, y, x), torch.where(outside, 0.0, (denominator / (s * root)).log())

    def _bin(self, u: Tensor, raw: Tensor, *, row: int) -> "_Bin":
        """Find the bin of u, a fraction of the interval, among the widths (row 0) or the heights (row 1).

        One scatter sorts the bins into the far ones before it, its neighbour, itself, its other neighbour and those
        after. Gradients flow through these five sums and two raw slopes only, so that nothing but their exponentials is
        kept for every bin.
        """
        logits, slopes = raw.to(u.dtype).split([2 * self.bins, self.bins - 1], -1)
        logits = logits.unflatten(-1, (2, self.bins)).contiguous()
        weights = (logits - logits.detach().amax(-1, keepdim=True)).exp()
        free = 1 - self.bins * self.min_bin
        number = torch.arange(self.bins, device=u.device)
        with torch.no_grad():
            ends = weights[..., row, :].cumsum(-1)
            floors = self.min_bin * number[1:].to(u.dtype)
            knots = torch.addcmul(floors, ends[..., :-1], free / ends[..., -1:])
            k = (u.unsqueeze(-1) >= knots).sum(-1)
            part = (number - (k - 2).unsqueeze(-1)).clamp(0, 4).unsqueeze(-2).expand(weights.shape)
            inner = torch.stack([k - 1, k], -1)  # the knots at both ends of bin k, counted among the inner ones
            is_inner = ((inner >= 0) & (inner < self.bins - 1)).movedim(-1, 0)
        sums = weights.new_zeros(*weights.shape[:-1], 5).scatter_add(-1, part, weights)
        sums = sums.flatten(-2).movedim(-1, 0).contiguous().unflatten(0, (2, 5))
        far, *near, _ = (sums * (free / sums.sum(1, keepdim=True))).unbind(1)
        left, bottom = (self.min_bin * k.to(u.dtype) + far + near[0]).unbind(0)
        widths, heights = (self.min_bin + torch.stack(near)).unbind(1)  # of the bins k - 1, k and k + 1
        chords = heights / widths
        harmonic = 2 * chords[:2] * chords[1:] / (chords[:2] + chords[1:])
        limit = math.log(self.max_factor)
        steep = slopes.gather(-1, inner.clamp(0, self.bins - 2)).movedim(-1, 0)
        d0, d1 = torch.where(is_inner, (limit * (steep / limit).tanh()).exp() * harmonic, 1.0).unbind(0)
        return _Bin(left, widths[1], bottom, heights[1], d0, d1)


class _Bin(NamedTuple):
    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    d0: Tensor
    d1: Tensor
