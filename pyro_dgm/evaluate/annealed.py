# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The marginal log-likelihood by annealed importance sampling, which needs no good inference network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from pyro_dgm.evaluate.annealing import Schedule, forwards
from pyro_dgm.evaluate.annealing_batches import Part, Settings, in_batches
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.log_likelihood import checked_nll
from pyro_dgm.evaluate.pareto import pareto_k
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS
from pyro_dgm.evaluate.weight_sums import WeightSums


@dataclass(frozen=True, eq=False)
class Annealed:
    """An annealed estimate, and what tells whether its chains moved well.

    Attributes:
        nll: The NLL in nats, from above.
        log_w: Log-weight of each chain, shape ``(C, N)``.
        acceptance: Acceptance probability of each transition, mean over chains, shape ``(T - 1, N)``: the first row is
            next to the start of the path, the last next to the posterior. About 0.65 is right.
    """

    nll: Estimate
    log_w: Tensor
    acceptance: Tensor

    def as_dict(self) -> dict[str, Any]:
        """List the summary for a JSON file."""
        return {**self.nll.as_dict(), "acceptance": acceptance_summary(self.acceptance)}

    def __str__(self) -> str:
        """Print as in ``NLL <= 82.14 +- 0.07 nats (AIS, 500 steps, 16 chains, 100 images), acceptance 0.65``."""
        return f"{self.nll}{acceptance_text(self.acceptance)}"


def ais(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    *,
    num_steps: int = 500,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: Literal["prior", "guide"] = "prior",
    schedule: Schedule = "sigmoid",
    step_size: float | int | None = None,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> Annealed:
    r"""Estimate -log p(x) for each datum by annealed importance sampling with Hamiltonian Monte Carlo.

    .. math:: -\log \hat p(x) = -\log \frac{1}{C} \sum_{c=1}^C \prod_{t=1}^T
              \frac{f_t(z_{t-1}^c)}{f_{t-1}(z_{t-1}^c)}, \qquad
              f_t(z) = s(z)^{1 - \beta_t}\, p(x, z)^{\beta_t}, \quad z_0 \sim s, \quad z_t \sim \mathcal{T}_t(z_{t-1})

    s is the prior p(z) or the guide q(z | x), and the transition :math:`\mathcal{T}_t` leaves :math:`f_t` invariant.
    The mean of weights is an unbiased estimate of p(x), so that in expectation the value lies above -log p(x); it falls
    to it as T or C grow. From the prior it does not depend on the guide at all. ``num_steps=1`` is importance sampling.

    The unbiasedness is exact, because step sizes are frozen before the chains run: a pilot run of at most 16 chains of
    its own and 50 + T / 10 temperatures adapts them to an acceptance of 0.65 for every datum and temperature, and is
    then forgotten. (Step sizes that adapt during the run, as in Wu et al., make transitions depend on the past: these
    are invariant only approximately.) A poor pilot costs tightness, not validity.

    Model and guide may be any Pyro programs whose latent variables are continuous and inside one data plate;
    constrained ones (positive, simplex, ...) are moved in unconstrained coordinates.

    Args:
        model: A Pyro program with a data plate, called as ``model(x)``.
        guide: Its guide, called as ``guide(x)``; it takes part only with ``start="guide"`` and may be ``None`` else.
        x: Data of shape ``(N, *event)``, on the model's device.
        num_steps: Number of steps T from s to the posterior. Cost is about ``num_steps * num_leapfrog`` gradients.
        num_chains: Chains C for each datum; 16 is usual.
        num_leapfrog: Leapfrog steps of a transition; 10 is usual.
        start: Where the path starts. The prior judges a model whatever its guide; a good guide is nearer.
        schedule: Spacing of the inverse temperatures, ``"sigmoid"`` or ``"linear"``.
        step_size: A fixed step size, instead of a pilot run.
        num_data: Size of the random subset; ``None`` is all.
        seed: Seed of the subset and of the chains.
        batch_size: Largest number of data at once.
        max_elements: Memory bound, as in `log_likelihood`; gradients keep a few tensors more alive.

    Returns:
        `Annealed`: an `Estimate` of the NLL in nats, log-weights and acceptance.

    Raises:
        ValueError: If a number is out of range, a latent variable is discrete or outside the data plate, or the guide
            is needed and does not fit.

    Source: Neal (2001), arXiv:physics/9803008; Wu, Burda, Salakhutdinov & Grosse (ICLR 2017), arXiv:1611.04273,
    section 3, whose schedule, 16 chains and 10 leapfrog steps are the defaults (they take 10000 steps).
    """
    settings = Settings(num_steps, num_chains, num_leapfrog, schedule, step_size, seed, batch_size, max_elements)
    chosen = check_start(guide, start)

    def run(part: Part) -> dict[str, Tensor]:
        chains = forwards(part.path, part.betas, part.steps, leapfrog=num_leapfrog)
        return {"log_w": chains.log_w, "acceptance": chains.acceptance}

    found = in_batches(model, chosen, x, run, settings, num_data=num_data)
    return Annealed(annealed_nll(found["log_w"], settings, x), found["log_w"], found["acceptance"])


def annealed_nll(log_w: Tensor, settings: Settings, x: Tensor) -> Estimate:
    """Make an estimate of the log-weights of forward chains, shape ``(C, N)``."""
    sums = WeightSums(log_w.shape[1], log_w.device)
    sums.add(log_w)
    return Estimate(
        "NLL <=",
        checked_nll(-sums.log_mean()),
        method=f"AIS, {settings}",
        ess=sums.ess(),
        noun="image" if x.dim() >= 3 else "datum",
        density=x.is_floating_point(),
        k_hat=pareto_k(log_w) if len(log_w) > 20 else None,
    )


def check_start(guide: Callable[..., Any] | None, start: str) -> Callable[..., Any] | None:
    """Give the guide if the path starts there, ``None`` for the prior."""
    if start not in ("prior", "guide"):
        raise ValueError(f"start={start!r} was given: a path starts from the 'prior' or from the 'guide'.")
    if start == "guide" and guide is None:
        raise ValueError("start='guide' was given and the guide is None: give a guide, or start from the 'prior'.")
    return guide if start == "guide" else None


def acceptance_summary(acceptance: Tensor) -> dict[str, float] | None:
    """List the mean acceptance, and the extremes over data and over temperatures of their means."""
    if not len(acceptance):
        return None
    data, steps = acceptance.mean(0), acceptance.mean(1)
    return {
        "mean": float(acceptance.mean()),
        "lowest_datum": float(data.min()),
        "highest_datum": float(data.max()),
        "lowest_temperature": float(steps.min()),
        "highest_temperature": float(steps.max()),
    }


def acceptance_text(acceptance: Tensor) -> str:
    """Say how much was accepted, and of which datum least; nothing if there were no transitions."""
    summary = acceptance_summary(acceptance)
    if summary is None:
        return ""
    return f", acceptance {summary['mean']:.2f} (of one datum at least {summary['lowest_datum']:.2f})"
