# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The tail of the importance weights tells whether an importance-sampled number can be trusted."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Beyond this k-hat the mean of the weights converges too slowly to be useful (Vehtari et al. 2024, section 3.2.4).
TRUSTED = 0.7

# Fewer exceedances than this determine no shape.
_FEWEST = 5

# Where the largest weights differ by less than this (in nats) they have no tail, only rounding.
_FLAT = 1e-3


class _Tail(NamedTuple):
    """A generalised Pareto distribution for each column."""

    shape: Tensor  # (B,): k, infinity if undetermined, minus infinity if there is no tail
    scale: Tensor  # (B,), in units of the largest weight
    cutoff: Tensor  # (B,): log of the threshold, relative to the largest weight


def tail_length(count: int) -> int:
    r"""Say how many of K weights make up the tail: :math:`M = \lceil \min(0.2 K, 3 \sqrt K) \rceil`.

    >>> tail_length(5000)
    213
    """
    return math.ceil(min(0.2 * count, 3 * math.sqrt(count)))


def pareto_k(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Estimate the shape k-hat of the generalised Pareto distribution of the largest importance weights.

    Weights have finite moments of orders below :math:`1 / k`: above 1/2 their variance is infinite, above 1 their mean.
    Below 0.7 an importance-sampled estimate is reliable; above it converges so slowly that neither the number nor its
    effective sample size should be believed, whatever they say.

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``, with K at least 21: the tail is the M = min(K / 5, 3 sqrt(K))
            largest, rounded up, and needs five.

    Returns:
        k-hat, shape ``(*batch)``. Minus infinity where the largest weights are equal to 0.1 % (there is no tail, and
        nothing to fear); infinity where fewer than five weights exceed the others (a few weights are all there is);
        NaN where a weight is NaN or infinite, or all are zero.

    Raises:
        ValueError: If there are too few weights for a tail.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry (JMLR 2024), arXiv:1507.02646, sections 3 and 6; the fit is that of
    Zhang & Stephens (Technometrics 2009), with the weak prior k ~ 1/2 of appendix G.

    >>> log_w = 0.9 * torch.distributions.Exponential(1.0).sample((10_000,))  # w is Pareto with k = 0.9
    >>> bool((pareto_k(log_w) - 0.9).abs() < 0.3)
    True
    """
    count = _count("pareto_k", log_w)
    top = log_w.reshape(count, -1).topk(tail_length(count) + 1, dim=0).values
    return tail_shape(top).reshape(log_w.shape[1:])


def psis(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
    r"""Smooth the largest importance weights, which lowers their variance at the price of a small bias.

    The M largest weights are replaced by the expected order statistics :math:`F^{-1}((i - 1/2) / M)` of the
    generalised Pareto distribution F that was fitted to them, and none exceeds the largest raw weight.

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``, with K at least 21.

    Returns:
        Smoothed log-weights in nats, of the same shape and order, not normalised: their ``softmax(0)`` weighs
        particles, their log-mean-exp estimates log p(x). A column whose k-hat is not finite is returned as it is.

    Raises:
        ValueError: If there are too few weights for a tail.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry (JMLR 2024), arXiv:1507.02646, section 3, algorithm 1.

    >>> log_w = 2 * torch.randn(1000, 3)
    >>> bool((psis(log_w).logsumexp(0) <= log_w.logsumexp(0) + 1).all())
    True
    """
    count = _count("psis", log_w)
    flat = log_w.reshape(count, -1)
    length = tail_length(count)
    top = flat.topk(length + 1, dim=0)
    tail = _fit(top.values)
    largest = top.values[0]
    rank = torch.arange(length, 0, -1, device=flat.device, dtype=torch.float64).unsqueeze(1)  # the largest comes first
    survival = -torch.log1p(-(rank - 0.5) / length)  # an exponential quantile, which is a Pareto quantile of k = 0
    shape = torch.where(tail.shape.abs() < 1e-8, 1e-8, tail.shape)
    exceedance = tail.scale / shape * torch.expm1(shape * survival)
    smooth = (largest + (exceedance + tail.cutoff.exp()).log().clamp_max(0.0)).to(flat.dtype)
    smooth = torch.where(tail.shape.isfinite(), smooth, top.values[:-1])
    return flat.scatter(0, top.indices[:-1], smooth).reshape(log_w.shape)


def _count(name: str, log_w: Tensor) -> int:
    if log_w.dim() < 1 or tail_length(len(log_w)) < _FEWEST:
        raise ValueError(
            f"{name} got log_w of shape {tuple(log_w.shape)}: the tail of fewer than 21 weights has no shape. Give "
            f"log-weights of shape (K, *batch), K at least 21; hundreds tell more."
        )
    return len(log_w)


def tail_shape(top: Float[Tensor, "M B"]) -> Float[Tensor, " B"]:
    """Fit k-hat to the M - 1 largest log-weights of each column and the next one, in descending order."""
    return _fit(top).shape.to(top.dtype)


def _fit(top: Tensor) -> _Tail:
    """Fit the exceedances over the smallest of the given log-weights, which are in descending order."""
    top = top.double()
    relative = top[:-1].flip(0) - top[0]  # ascending, at most 0
    cutoff = (top[-1] - top[0]).clamp_min(math.log(torch.finfo(torch.float64).tiny))
    excess = (relative.exp() - cutoff.exp()).clamp_min(0.0)
    number = (excess > 0).sum(0)
    enough = number >= _FEWEST
    shape, scale = _zhang_stephens(torch.where(enough, excess, 1.0), torch.where(enough, number, len(excess)))
    shape = torch.where(enough, shape, math.inf)
    shape = torch.where(cutoff > -_FLAT, -math.inf, shape)
    return _Tail(torch.where(top[0].isfinite(), shape, math.nan), scale, cutoff)


def _zhang_stephens(excess: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    r"""Average :math:`b = -k / \sigma` over a grid, weighted by the profile likelihood, and read off k and sigma.

    Args:
        excess: Exceedances in ascending order, shape ``(M, B)``; zeros, which come first, take no part.
        number: How many are not zero, shape ``(B,)``.
    """
    size = 30 + math.isqrt(len(excess))
    quartile = (len(excess) - number + (number / 4 + 0.5).long() - 1).unsqueeze(0)
    spread = 3 * excess.gather(0, quartile)[0]
    grid = 1 - math.sqrt(size) / (torch.arange(size, device=excess.device, dtype=excess.dtype) + 0.5).sqrt()
    b = grid.unsqueeze(1) / spread + 1 / excess[-1]  # (G, B)
    # One grid point at a time: memory stays that of the tail.
    k = torch.stack([torch.log1p(-row * excess).sum(0) / number for row in b])
    likelihood = number * ((-b / k).log() - k - 1)
    b = (likelihood.softmax(0) * b).sum(0)
    k = torch.log1p(-b * excess).sum(0) / number
    return (number * k + 5.0) / (number + 10.0), -k / b  # ten observations' worth of k = 1/2
