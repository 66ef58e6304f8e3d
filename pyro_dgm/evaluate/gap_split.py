# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a guide loses splits into what its family cannot express and what its network does not find."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.footprint import footprint
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.local_fit import fit_locally
from pyro_dgm.evaluate.local_guide import LocalGuide
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS
from pyro_dgm.infer.log_weights import log_weights


@dataclass(frozen=True, eq=False)
class GapSplit:
    """The inference gap and its parts, in nats per datum; for every datum the parts add up to the whole.

    Attributes:
        inference: log p(x) - L[q], all that the guide loses.
        approximation: log p(x) - L[q*], what the best member q* of its family loses.
        amortization: L[q*] - L[q], what the network loses that has to find q* for all data alike.
        flow: L[q* bent by a flow] - L[q*], what a richer family wins back, if it was asked for.
        nll: -log p(x), as the gaps take it. If it is an upper bound in expectation (``"NLL <="``, as importance
            sampling gives it), the inference gap is a lower one, and the other way round.
        noise: Standard error of each datum's amortisation gap by its samples, shape ``(N,)``.
        last_change: What the last round of fitting brought, in nats per datum on average.
        converged: Whether that was below the tolerance.
    """

    inference: Estimate
    approximation: Estimate
    amortization: Estimate
    nll: Estimate
    noise: Tensor
    last_change: float
    converged: bool
    flow: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """List the parts for a JSON file."""
        found = {name: part.as_dict() for name, part in self._parts.items()}
        change = self.last_change if math.isfinite(self.last_change) else None
        return {**found, "last_change": change, "converged": self.converged}

    def __str__(self) -> str:
        """Print one line for each part, the whole first, and a warning if the fits did not converge."""
        lines = [str(part) for part in self._parts.values()]
        if not self.converged:
            lines.append(
                f"the fits have not converged: the last round brought {self.last_change:.3f} nats; give more steps"
            )
        return "\n".join(lines)

    @property
    def _parts(self) -> dict[str, Estimate]:
        found = {
            "inference": self.inference,
            "approximation": self.approximation,
            "amortization": self.amortization,
            "flow": self.flow,
            "nll": self.nll,
        }
        return {name: part for name, part in found.items() if part is not None}


def gap_split(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    flow: Callable[..., Any] | None = None,
    nll: Estimate | None = None,
    num_steps: int = 200,
    rounds: int = 5,
    tolerance: float | int = 0.02,
    lr: float | int = 0.05,
    particles: int = 8,
    num_samples: int = 1000,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> GapSplit:
    r"""Fit the posterior of every datum by itself and see what that brings.

    .. math:: \log p(x) - \mathcal{L}[q] =
              \underbrace{\log p(x) - \mathcal{L}[q^*]}_{\text{approximation gap}} +
              \underbrace{\mathcal{L}[q^*] - \mathcal{L}[q]}_{\text{amortisation gap}}, \qquad
              q^* = \operatorname*{argmax}_{q \in \mathcal{Q}} \mathcal{L}[q]

    Q is the guide's own family: the numbers that its `Head` reads, or else its distributions' parameters, are moved for
    every datum from where the guide puts them. All data are fitted at once, by Adam on the ELBO in rounds of
    ``num_steps`` steps whose rate falls to 0, until a round brings less than ``tolerance``. A fit that stops early
    makes the amortisation gap too small and the approximation gap too large. Each ELBO is estimated anew after the
    fits; log p(x) is the log of the mean importance weight of all posteriors, unless ``nll`` is given.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide.
        x: Data of shape ``(N, *event)``. 100 test data are what the paper takes.
        flow: Makes, from ``dim`` and ``context_dim``, a flow that bends every datum's q* further, with parameters of
            its own for every datum: how much would a richer family bring?
        nll: -log p(x) of the same data in the same order, e.g. by annealed importance sampling, shape ``(num_data,)``.
        num_steps: Steps in a round.
        rounds: Most rounds.
        tolerance: Smallest improvement of a round, in nats per datum, for which there is another one.
        lr: Adam's rate at the start of a round.
        particles: Samples of every posterior in a step.
        num_samples: Samples of every posterior for each ELBO and for log p(x).
        num_data: Size of a random subset; ``None`` is all.
        seed: Seed of the subset and of all samples.
        batch_size: Largest number of data that are fitted at once.
        max_elements: Memory bound, as in `log_likelihood`.

    Returns:
        `GapSplit`.

    Raises:
        ValueError: If x is empty, a number is out of range, the guide's family is not known, or ``nll`` is of
            other data.

    Source: Cremer, Li & Duvenaud (ICML 2018), arXiv:1801.03558, section 3.
    """
    numbers = {"num_steps": num_steps, "rounds": rounds, "particles": particles, "batch_size": batch_size}
    for name, value in {**numbers, "num_samples": num_samples, "max_elements": max_elements}.items():
        if value < 1:
            raise ValueError(f"gap_split got {name}={value}: at least 1 is needed.")
    x = x[random_subset(len(x), num_data, seed=seed).to(x.device)]
    _check_same_data(nll, x)
    fit = partial(
        fit_locally, model, num_steps=num_steps, rounds=rounds, tolerance=tolerance, lr=lr, particles=particles
    )
    with frozen(model, guide, seed=seed, device=x.device):
        rows = max(1, max_elements // footprint(lambda some: log_weights(model, guide, some).log_w, x))
        weigh = partial(_summary, model, num_samples=num_samples, rows=rows)
        batches = x.split(min(batch_size, max(1, rows // particles)))
        parts = [_of_batch(guide, batch, flow=flow, fit=fit, weigh=weigh) for batch in batches]
    joined = {name: torch.cat([part[name].double().cpu() for part in parts]) for name in parts[0]}
    return _split(joined, nll, x, num_samples=num_samples, tolerance=tolerance)


def _check_same_data(nll: Estimate | None, x: Tensor) -> None:
    if nll is not None and len(nll.values) != len(x):
        raise ValueError(
            f"gap_split got the NLL of {len(nll.values)} data and evaluates {len(x)}: give that of the same data, "
            f"found with the same seed= and num_data=."
        )


def _of_batch(
    guide: Callable[..., Any],
    x: Tensor,
    *,
    flow: Callable[..., Any] | None,
    fit: Callable[..., Tensor],
    weigh: Callable[..., dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Weigh the data by the guide, by the posteriors fitted to them, and by those bent by a flow."""
    local = LocalGuide(guide, x)
    found = {"q": weigh(guide, x)}
    changes = fit(local, x)
    found["q*"] = weigh(local, x)
    if flow is not None:
        local.add_flow(flow)
        changes = changes.maximum(fit(local, x))
        found["flow"] = weigh(local, x)
    return {"change": changes, **{f"{which} {name}": v for which, some in found.items() for name, v in some.items()}}


def _summary(
    model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *, num_samples: int, rows: int
) -> dict[str, Tensor]:
    """Estimate L[q] and log p(x) of every datum from one set of samples, and the variance of the former's estimate."""
    nesting, chunk = log_weights(model, guide, x).nesting, max(1, rows // len(x))
    total = squares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    log_sum = torch.full_like(total, -math.inf)
    for done in range(0, num_samples, chunk):
        count = min(chunk, num_samples - done)
        log_w = log_weights(model, guide, x, particles=count, max_plate_nesting=nesting).log_w.double()
        total, squares = total + log_w.sum(0), squares + log_w.square().sum(0)
        log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
    mean = total / num_samples
    variance = (squares / num_samples - mean.square()).clamp(min=0) / num_samples
    return {"elbo": mean, "variance": variance, "log p": log_sum - math.log(num_samples)}


def _split(
    found: dict[str, Tensor], nll: Estimate | None, x: Tensor, *, num_samples: int, tolerance: float | int
) -> GapSplit:
    """Subtract one bound from another, datum by datum."""
    noun = "image" if x.dim() >= 3 else "datum"
    samples = f"{num_samples} sample{'s' * (num_samples != 1)}"
    if nll is None:
        all_p = torch.stack([values for name, values in found.items() if name.endswith("log p")])
        log_p = all_p.logsumexp(0) - math.log(len(all_p))
        method = f"IS, {len(all_p)} x {samples}"
        nll = Estimate("NLL <=", -log_p, method, noun=noun, density=x.is_floating_point())
    else:
        log_p = -nll.values.double().cpu()
    side = {"=": "=", "<=": ">=", ">=": "<="}.get(nll.name.split()[-1], "~")  # log p(x) = -nll comes with a plus
    estimate = partial(Estimate, method=f"MC, {samples}", noun=noun)
    bent = found["flow elbo"] - found["q* elbo"] if "flow elbo" in found else None
    change = float(found["change"].mean())
    return GapSplit(
        estimate(f"inference-gap {side}", log_p - found["q elbo"]),
        estimate("approximation-gap ~", log_p - found["q* elbo"]),
        estimate("amortization-gap >=", found["q* elbo"] - found["q elbo"]),
        nll,
        noise=(found["q variance"] + found["q* variance"]).sqrt(),
        last_change=change,
        converged=change < tolerance,
        flow=None if bent is None else estimate("won-by-flow >=", bent),
    )
