# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Runs of annealed chains along a path, forwards and backwards, with step sizes that a pilot run has found."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyro_dgm.evaluate.hmc import hmc
from pyro_dgm.evaluate.latent_path import LatentPath
from pyro_dgm.evaluate.tempered import Tempered

Schedule = Literal["linear", "sigmoid"]

# Best for HMC in high dimension (Beskos et al. 2013, arXiv:1001.4460).
TARGET_ACCEPTANCE = 0.65

# Transitions at the start of the path that find the scale of the step sizes before it is left.
_WARM_UP = 20

# How fast log step sizes follow the acceptance: transitions that accept all double the step size in four.
_RATE = 0.5


def inverse_temperatures(num_steps: int, schedule: Schedule = "sigmoid") -> list[float]:
    r"""List the inverse temperatures :math:`0 = \beta_0 < \dots < \beta_T = 1`.

    .. math:: \beta_t = \frac{\sigma(\delta (2t/T - 1)) - \sigma(-\delta)}{\sigma(\delta) - \sigma(-\delta)},
              \qquad \delta = 4

    is the sigmoid schedule, which goes slowly at both ends; the linear one is :math:`t / T`.

    Args:
        num_steps: T.
        schedule: ``"sigmoid"`` or ``"linear"``.

    Returns:
        T + 1 numbers.

    Raises:
        ValueError: If ``num_steps < 1`` or there is no such schedule.

    Source: Grosse, Ghahramani & Adams (2015), arXiv:1511.02543, section 5; delta is that of Wu et al. (ICLR 2017).

    >>> [round(beta, 2) for beta in inverse_temperatures(4)]
    [0.0, 0.1, 0.5, 0.9, 1.0]
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} was given: annealing needs at least 1, and hundreds to be tight.")
    shares = [step / num_steps for step in range(num_steps + 1)]
    if schedule == "linear":
        return shares
    if schedule != "sigmoid":
        raise ValueError(f"There is no schedule {schedule!r}: take 'sigmoid' or 'linear'.")
    low, high = (1 / (1 + math.exp(-4 * sign)) for sign in (-1, 1))
    return [(1 / (1 + math.exp(-4 * (2 * share - 1))) - low) / (high - low) for share in shares]


@dataclass(frozen=True, eq=False)
class StepSizes:
    """Step sizes along a path that no chain of the run itself has influenced.

    Attributes:
        log_table: Logs of the step sizes at evenly spaced steps, shape ``(S, B)``.
    """

    log_table: Tensor

    def at(self, share: float | int) -> Tensor:
        """Interpolate at a share of the path, from 0 to 1: shape ``(B,)``."""
        place = share * (len(self.log_table) - 1)
        below = min(int(place), len(self.log_table) - 1)
        above = min(below + 1, len(self.log_table) - 1)
        return self.log_table[below].lerp(self.log_table[above], place - below).exp()


@dataclass(frozen=True, eq=False)
class Chains:
    """What a run of annealed chains gives.

    Attributes:
        log_w: Log-weights in nats, float64, shape ``(C, B)``.
        acceptance: Mean acceptance probability of each transition, from ``betas[1]`` to ``betas[T - 1]`` whatever the
            direction, shape ``(T - 1, B)``.
        state: Where the chains ended.
    """

    log_w: Tensor
    acceptance: Tensor
    state: Tempered


def forwards(path: LatentPath, betas: list[float], steps: StepSizes, *, leapfrog: int) -> Chains:
    r"""Anneal from the start of the path to the posterior; E[w] is p(x) exactly.

    .. math:: \log w = \sum_{t=1}^T \log f_{\beta_t}(z_{t-1}) - \log f_{\beta_{t-1}}(z_{t-1}), \qquad
              z_0 \sim f_{\beta_0}, \quad z_t \sim \mathcal{T}_t(z_{t-1})
    """
    state = path(path.draw())
    acceptance: list[Tensor] = []
    log_w = torch.zeros_like(state.start, dtype=torch.float64)
    for t in range(1, len(betas)):
        log_w = log_w + state.rise(betas[t - 1], betas[t])
        if t < len(betas) - 1:  # the last transition would change no weight
            size = steps.at(t / (len(betas) - 1))
            state, accepted = hmc(path, state, size, beta=betas[t], leapfrog=leapfrog)
            acceptance.append(accepted.mean(0))
    return Chains(log_w, _table(acceptance, log_w), state)


def backwards(path: LatentPath, u: Tensor, betas: list[float], steps: StepSizes, *, leapfrog: int) -> Chains:
    r"""Anneal from posterior samples back to the start with the reversed transitions; E[1 / w] is 1 / p(x) exactly.

    Each transition is reversible, so that it is its own reversal.
    """
    state = path(u)
    acceptance: list[Tensor] = []
    log_w = torch.zeros_like(state.start, dtype=torch.float64)
    for t in range(len(betas) - 1, 0, -1):
        log_w = log_w + state.rise(betas[t - 1], betas[t])
        if t > 1:
            size = steps.at((t - 1) / (len(betas) - 1))
            state, accepted = hmc(path, state, size, beta=betas[t - 1], leapfrog=leapfrog)
            acceptance.append(accepted.mean(0))
    return Chains(log_w, _table(acceptance[::-1], log_w), state)


def _table(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(rows).float() if rows else like.new_zeros(0, like.shape[1], dtype=torch.float32)


def pilot(path: LatentPath, num_steps: int, schedule: Schedule, *, leapfrog: int) -> StepSizes:
    r"""Adapt step sizes to an acceptance of 0.65 along the path, for each datum, in a run of chains of its own.

    .. math:: \log \epsilon_{t+1} = \log \epsilon_t + \tfrac12 (\bar a_t - 0.65)

    The mean is over the chains of a datum. All dimensions share one step size: to let each follow the spread of the
    chains there did not tighten the bounds of a VAE.

    Args:
        path: Scores points; its number of chains is that of the pilot run.
        num_steps: Number of inverse temperatures at which step sizes are recorded.
        schedule: How they are spaced.
        leapfrog: Leapfrog steps of each transition.
    """
    betas = inverse_temperatures(num_steps, schedule)
    state = path(path.draw())
    log_step = torch.full_like(state.start[0], math.log(0.5) - 0.25 * math.log(state.u.shape[-1]))  # the usual scaling
    table = []
    for beta in [0.0] * _WARM_UP + betas:
        state, accepted = hmc(path, state, log_step.exp(), beta=beta, leapfrog=leapfrog)
        log_step = log_step + _RATE * (accepted.mean(0) - TARGET_ACCEPTANCE)
        table.append(log_step)
    return StepSizes(torch.stack(table[_WARM_UP:]))
