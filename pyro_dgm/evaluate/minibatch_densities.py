# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Estimate the aggregate posterior from the posteriors of a minibatch, where all data would be too many."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def minibatch_weighted(log_q: Float[Tensor, "B B *dims"], total: int) -> Float[Tensor, "B *dims"]:
    r"""Estimate log q(z_i) by minibatch-weighted sampling (MWS).

    .. math:: \log \hat q(z_i) = \log \frac{1}{N B} \sum_{j=1}^B q(z_i \mid x_j)

    It is biased low, :math:`\mathbb{E} \log \hat q(z_i) \le \log q(z_i)`, so it makes mutual information look too high;
    and it is not consistent: with all data in the minibatch it is exactly log N too low. `minibatch_stratified` is
    neither. It is here because published numbers have it.

    Args:
        log_q: log q(z_i | x_j) in nats, z_i drawn from q(z | x_i), shape ``(B, B)``, or ``(B, B, L)`` by dimension.
        total: Number N of data of which the B are a random subset.

    Returns:
        Shape ``(B)``, or ``(B, L)``.

    Raises:
        ValueError: If there are fewer than B data.

    Source: Chen, Li, Grosse & Duvenaud (NeurIPS 2018), arXiv:1802.04942, appendix C.1.

    >>> minibatch_weighted(torch.zeros(2, 2), total=4).exp()
    tensor([0.2500, 0.2500])
    """
    _check(log_q, total)
    return log_q.logsumexp(1) - math.log(total * len(log_q))


def minibatch_stratified(log_q: Float[Tensor, "B B *dims"], total: int) -> Float[Tensor, "B *dims"]:
    r"""Estimate log q(z_i) by minibatch-stratified sampling (MSS).

    .. math:: \hat q(z_i) = \frac{1}{N}\, q(z_i \mid x_i) + \frac{N - 1}{N (B - 1)} \sum_{j \neq i} q(z_i \mid x_j)

    The datum that z_i came from is in the minibatch for sure and stands for itself; the others, a random subset of the
    N - 1 others, stand for those. :math:`\hat q(z_i)` is unbiased, its log is biased low (Jensen), and with all data in
    the minibatch it is exact. The paper gives one of the others another weight than the rest; this is the
    mean over which one that is, of the same expectation and no larger variance.

    Args:
        log_q: log q(z_i | x_j) in nats, z_i drawn from q(z | x_i), shape ``(B, B)``, or ``(B, B, L)`` by dimension.
        total: Number N of data of which the B are a random subset.

    Returns:
        Shape ``(B)``, or ``(B, L)``.

    Raises:
        ValueError: If there are fewer than B data, or B is 1 and N is not.

    Source: Chen, Li, Grosse & Duvenaud (NeurIPS 2018), arXiv:1802.04942, appendix C.2. In code that many copied the
    weight 1/N stands in the first column instead of on the diagonal.

    >>> minibatch_stratified(torch.tensor([[1.0, 3.0], [3.0, 1.0]]).log(), total=4).exp()  # (1 + 3 * 3) / 4
    tensor([2.5000, 2.5000])
    """
    _check(log_q, total)
    size = len(log_q)
    if size == 1 < total:
        raise ValueError(
            f"minibatch_stratified got a minibatch of one out of {total} data: it needs another datum to stand for the "
            f"others. Give a larger minibatch."
        )
    others = math.log((total - 1) / (total * (size - 1))) if size > 1 else 0.0
    weights = torch.full((size, size), others, dtype=log_q.dtype, device=log_q.device)
    weights.fill_diagonal_(-math.log(total))
    return (log_q + weights.reshape(size, size, *[1] * (log_q.dim() - 2))).logsumexp(1)


def _check(log_q: Tensor, total: int) -> None:
    if total < len(log_q) or len(log_q) < 1:
        raise ValueError(f"A minibatch of {len(log_q)} was given as part of total={total} data: 1 to total are needed.")
