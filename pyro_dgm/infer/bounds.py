# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
r"""A bound turns log-weights into a bound on log p(x), whatever model and guide they came from.

Every function takes unscaled log-weights :math:`\log w_k = \log p(x, z_k) - \log q(z_k \mid x)`
of shape ``(K, *batch)``, in nats, and reduces the particles: bigger is better, one value per datum.

A weight may be zero (a log-weight of minus infinity). A datum whose bound is minus infinity for that reason gets no
gradient from `iwae`, `miwae` and `renyi`, and there is never NaN; `elbo` and `ciwae` are minus infinity as soon as one
weight is zero, and hand on the gradient of their mean.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def elbo(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Average the log-weights: the evidence lower bound.

    .. math:: \mathcal{L}(x) = \frac{1}{K} \sum_{k=1}^K \log w_k
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.

    Returns:
        The bound in nats, shape ``(*batch)``. Its gap to log p(x) is KL(q(z|x) || p(z|x)), for every K.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, eq. 3 and 6.

    >>> elbo(torch.tensor([[-3.0], [-1.0]]))
    tensor([-2.])
    """
    return log_w.mean(0)


def iwae(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Take the log of the average weight: the importance-weighted bound.

    .. math:: \mathcal{L}_K(x) = \log \frac{1}{K} \sum_{k=1}^K w_k
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.

    Returns:
        The bound in nats, shape ``(*batch)``. K = 1 is `elbo`; the bound rises with K to log p(x).

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, eq. 8.

    >>> iwae(torch.tensor([[0.0], [math.log(3.0)]]))
    tensor([0.6931])
    """
    dead = (log_w == -math.inf).all(0)  # the gradient of logsumexp is NaN there
    value = _without_faint(log_w).masked_fill(dead, 0.0).logsumexp(0) - math.log(len(log_w))
    return value.masked_fill(dead, -math.inf)


def _without_faint(log_w: Tensor) -> Tensor:
    """Make weights zero that are below eps squared of the largest: lost in rounding, but not free.

    Their gradients are subnormal numbers, with which a CPU takes many times as long.
    """
    floor = log_w.detach().amax(0) + 2 * math.log(torch.finfo(log_w.dtype).eps)
    return log_w.masked_fill(log_w.detach() < floor, -math.inf)


def renyi(log_w: Float[Tensor, "K *batch"], alpha: int | float) -> Float[Tensor, "*batch"]:
    r"""Take the log of a power mean of the weights: the variational Renyi bound.

    .. math:: \mathcal{L}_{\alpha, K}(x) = \frac{1}{1 - \alpha} \log \frac{1}{K} \sum_{k=1}^K w_k^{1 - \alpha}

    It falls as alpha rises, for any weights: alpha = 0 is `iwae`, alpha = 1 (the limit) is `elbo`. So for alpha >= 0 it
    is a lower bound on log p(x) in expectation, for every K. For alpha < 0 its limit in K is an upper bound, but the
    expectation for finite K (which rises with K, and is the ELBO for K = 1) may lie on either side.

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.
        alpha: Order of the divergence, any finite number.

    Returns:
        The bound in nats, shape ``(*batch)``.

    Raises:
        ValueError: If alpha is not finite.

    Source: Li & Turner (NIPS 2016), arXiv:1602.02311, eq. 14 and theorem 2.

    >>> renyi(torch.tensor([[0.0], [math.log(3.0)]]), 0.5)  # 2 log((1 + sqrt 3) / 2)
    tensor([0.6238])
    """
    if not math.isfinite(alpha):
        raise ValueError(
            f"renyi got alpha={alpha}: a finite number is needed. The limits of the bound are the smallest log-weight "
            f"(alpha to infinity) and the largest (alpha to minus infinity)."
        )
    if alpha == 0:
        return iwae(log_w)
    power = 1.0 - alpha
    if power == 0:
        return elbo(log_w)
    reference = (log_w.amax(0) if power > 0 else log_w.amin(0)).detach()  # the mean's largest term is then 1
    lost = reference.isinf()
    away = log_w.masked_fill(lost, 0.0) - reference.masked_fill(lost, 0.0)
    less = (power * away).expm1().mean(0)  # the mean of w^power less 1: nothing cancels, however close alpha is to 1
    log_mean = less.log1p().where(less > -0.5, iwae(power * away))  # nor where one of many particles has all weight
    return (log_mean / power + reference).masked_fill(lost, 0.0) + reference.where(lost, 0.0)


def cubo(log_w: Float[Tensor, "K *batch"], order: int | float = 2) -> Float[Tensor, "*batch"]:
    r"""Take the log of the weights' n-th moment: the chi upper bound, estimated.

    .. math:: \mathrm{CUBO}_{n, K}(x) = \frac{1}{n} \log \frac{1}{K} \sum_{k=1}^K w_k^n, \qquad
              \mathrm{CUBO}_n(x) = \frac{1}{n} \log \mathbb{E}_q[w^n] \ge \log p(x)

    What is guaranteed for finite K: :math:`\exp(n \, \mathrm{CUBO}_{n, K})` is an unbiased estimate of
    :math:`\exp(n \, \mathrm{CUBO}_n) \ge p(x)^n`. The estimate itself is too low in expectation (it is the ELBO for
    K = 1) and so may lie below log p(x): it becomes an upper bound as K grows. It is never below `iwae` of the same
    weights. Order n is `renyi` with alpha = 1 - n.

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.
        order: n, at least 1; 2 belongs to the chi-square divergence. For 1 the bound is log p(x) itself.

    Returns:
        The bound in nats, shape ``(*batch)``: *smaller* is tighter.

    Raises:
        ValueError: If the order is below 1 or not finite.

    Source: Dieng, Tran, Ranganath, Paisley & Blei (NIPS 2017), arXiv:1611.00328, eq. 3.

    >>> cubo(torch.tensor([[0.0], [math.log(3.0)]]))  # log(5) / 2
    tensor([0.8047])
    """
    if not 1 <= order < math.inf:
        raise ValueError(f"cubo got order={order}: a finite number from 1 on is needed; below 1 it is no upper bound.")
    return renyi(log_w, 1 - order)


def miwae(log_w: Float[Tensor, "K *batch"], groups: int) -> Float[Tensor, "*batch"]:
    r"""Average the importance-weighted bounds of groups of particles.

    .. math:: \mathcal{L}_{M, K/M}(x) = \frac{1}{M} \sum_{m=1}^M \log \frac{M}{K} \sum_{k \in \text{group } m} w_k
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights of all K particles in nats, shape ``(K, *batch)``. Neighbours make a group.
        groups: M, which divides K. 1 is `iwae`, K is `elbo`.

    Returns:
        The bound in nats, shape ``(*batch)``: that of K/M particles in expectation, with less variance.

    Raises:
        ValueError: If there are not that many groups of one size.

    Source: Rainforth et al. (ICML 2018), arXiv:1802.04537, eq. 15.

    >>> miwae(torch.tensor([[0.0], [math.log(3.0)], [1.0], [1.0]]), groups=2)  # (log(2) + 1) / 2
    tensor([0.8466])
    """
    return iwae(split_into_groups(log_w, groups)).mean(0)


def ciwae(log_w: Float[Tensor, "K *batch"], mix: int | float) -> Float[Tensor, "*batch"]:
    r"""Mix the evidence lower bound with the importance-weighted one.

    .. math:: \mathcal{L}(x) = \beta \, \mathcal{L}_{\text{ELBO}}(x) + (1 - \beta) \, \mathcal{L}_K(x)
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.
        mix: The paper's beta, from 0 (`iwae`) to 1 (`elbo`).

    Returns:
        The bound in nats, shape ``(*batch)``.

    Raises:
        ValueError: If ``mix`` is not between 0 and 1.

    Source: Rainforth et al. (ICML 2018), arXiv:1802.04537, eq. 16.

    >>> ciwae(torch.tensor([[0.0], [math.log(3.0)]]), mix=0.5)
    tensor([0.6212])
    """
    if not 0 <= mix <= 1:
        raise ValueError(f"ciwae got mix={mix}: a number between 0, IWAE alone, and 1, the ELBO alone, is needed.")
    if mix in (0, 1):  # so that 0 times minus infinity is nowhere
        return elbo(log_w) if mix else iwae(log_w)
    return mix * elbo(log_w) + (1 - mix) * iwae(log_w)


def split_into_groups(log_w: Tensor, groups: int) -> Tensor:
    """Turn ``(K, *batch)`` into ``(K / groups, groups, *batch)``; neighbours make a group."""
    if groups < 1 or len(log_w) % groups:
        raise ValueError(
            f"There were {len(log_w)} particles to make groups={groups} of: the number of groups must divide that of "
            f"the particles."
        )
    return log_w.unflatten(0, (groups, len(log_w) // groups)).transpose(0, 1)
