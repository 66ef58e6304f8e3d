# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Hamiltonian Monte Carlo moves many chains for many data at once, each by its own gradient."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_dgm.evaluate.tempered import Tempered

# Relative width of the random factor on each transition's step size: without one, a path can be periodic.
_JITTER = 0.1


def hmc(
    path: Callable[[Tensor], Tempered],
    state: Tempered,
    step_size: Float[Tensor, " B"],
    *,
    beta: float | int = 1.0,
    leapfrog: int = 10,
) -> tuple[Tempered, Float[Tensor, "C B"]]:
    r"""Make one transition that leaves :math:`f_\beta` invariant and is reversible.

    .. math:: p \sim N(0, I), \qquad (u', p') = \mathrm{leapfrog}^L(u, p), \qquad
              a = \min\big(1, \tfrac{f_\beta(u')\, N(p')}{f_\beta(u)\, N(p)}\big)

    All chains of all data move in the same tensors; every leapfrog step calls ``path`` once. A path that leaves the
    numbers (an infinite point, a density that is NaN) is rejected. The step size of each chain gets a random factor
    from 0.9 to 1.1, drawn independently of the state, so that the transition stays exact.

    Args:
        path: Scores points of shape ``(C, B, D)``.
        state: Where the chains are.
        step_size: One for each datum, shape ``(B,)``.
        beta: Inverse temperature: which density of the path.
        leapfrog: Number of leapfrog steps L.

    Returns:
        The new state, and the probability with which each chain's proposal was accepted, shape ``(C, B)``.

    Raises:
        ValueError: If ``leapfrog < 1``.

    Source: Neal (2011), MCMC using Hamiltonian dynamics, arXiv:1206.1901.
    """
    if leapfrog < 1:
        raise ValueError(f"hmc got leapfrog={leapfrog}: at least one step is needed; 10 is usual.")
    chance = torch.rand(2, *state.start.shape, dtype=state.u.dtype, device=state.u.device)
    step = (step_size * (1 + _JITTER * (2 * chance[0] - 1))).unsqueeze(-1)  # (C, B, 1)
    momentum = torch.randn_like(state.u)
    p, new = momentum + 0.5 * step * state.gradient(beta), state
    for last in range(leapfrog - 1, -1, -1):
        u = new.u + step * p
        new = path(torch.where(u.isfinite().all(-1, keepdim=True), u, state.u))
        p = p + (step if last else 0.5 * step) * new.gradient(beta)  # once it is not finite, it stays so
    kinetic = 0.5 * (momentum.square() - p.square()).sum(-1)
    ratio = new.log_prob(beta) - state.log_prob(beta) + kinetic
    accepted = torch.where(ratio.isnan(), -torch.inf, ratio).clamp_max(0.0).exp()
    return new.where(chance[1] < accepted, state), accepted
