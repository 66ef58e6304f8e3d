# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The average KL term splits into what the codes tell about the data and how far the codes are from the prior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pyro_dgm.evaluate.aggregate_posterior import log_mixture
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.latent_codes import LatentCodes, draw_codes
from pyro_dgm.evaluate.minibatch_densities import minibatch_stratified, minibatch_weighted
from pyro_dgm.evaluate.pair_scores import PairScores
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS

Aggregate = Literal["exact", "mss", "mws"]


@dataclass(frozen=True, eq=False)
class ElboSurgery:
    """The average KL term and its parts, in nats per datum.

    For every datum ``kl`` is ``mutual_information`` plus ``marginal_kl``, and ``marginal_kl`` is ``total_correlation``
    plus all of ``dimension_kl``, where there are those.

    Attributes:
        kl: KL(q(z | x) || p(z)), averaged over the data.
        mutual_information: Between the index of a datum and its code; at most ``log N``.
        marginal_kl: KL(q(z) || p(z)), which a prior equal to the aggregate posterior q(z) would bring to 0.
        total_correlation: KL(q(z) || prod_j q(z_j)), for posteriors of independent dimensions.
        dimension_kl: KL(q(z_j) || p(z_j)), for each dimension j, if the prior's dimensions are independent as well.
    """

    kl: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate
    total_correlation: Estimate | None = None
    dimension_kl: tuple[Estimate, ...] = ()

    @property
    def num_data(self) -> int:
        """Number N of data whose posteriors make up the aggregate posterior."""
        return len(self.kl.values)

    @property
    def dimension_kls(self) -> Estimate | None:
        """The KL terms of all dimensions together."""
        if not self.dimension_kl:
            return None
        values = torch.stack([part.values for part in self.dimension_kl]).sum(0)
        return Estimate("dimension-wise-KL =", values, self.kl.method, noun=self.kl.noun)

    @property
    def saturated(self) -> bool:
        """Whether the information is within a tenth of its ceiling log N: more data would then show more of it."""
        return self.mutual_information.mean > 0.9 * math.log(self.num_data)

    def as_dict(self) -> dict[str, Any]:
        """List the parts for a JSON file."""
        found: dict[str, Any] = {name: part.as_dict() for name, part in self._parts.items()}
        means = [part.mean for part in self.dimension_kl]
        by_dimension = [round(mean, 6) if math.isfinite(mean) else None for mean in means] or None
        return {**found, "dimension_kl": by_dimension, "log_num_data": math.log(self.num_data)}

    def __str__(self) -> str:
        """Print one line for each part, the whole first, and the ceiling of the information."""
        ceiling = f"information <= log {self.num_data} = {math.log(self.num_data):.2f} nats by construction"
        return "\n".join([*map(str, self._parts.values()), ceiling + " (reached: take more data)" * self.saturated])

    @property
    def _parts(self) -> dict[str, Estimate]:
        found = {
            "kl": self.kl,
            "mutual_information": self.mutual_information,
            "marginal_kl": self.marginal_kl,
            "total_correlation": self.total_correlation,
            "dimension_kls": self.dimension_kls,
        }
        return {name: part for name, part in found.items() if part is not None}


def elbo_surgery(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    aggregate: Aggregate = "exact",
    minibatch: int = 256,
    num_samples: int = 1,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> ElboSurgery:
    r"""Split the average KL term by the aggregate posterior :math:`q(z) = \frac{1}{N} \sum_n q(z \mid x_n)`.

    .. math:: \frac{1}{N} \sum_n \mathrm{KL}(q(z \mid x_n) \| p(z)) =
              \underbrace{\mathrm{I}_q[n, z]}_{\text{index-code information}} +
              \underbrace{\mathrm{KL}(q(z) \| p(z))}_{\text{marginal KL}}, \qquad
              \mathrm{KL}(q(z) \| p(z)) = \mathrm{KL}\Big(q(z) \Big\| \prod_j q(z_j)\Big)
              + \sum_j \mathrm{KL}(q(z_j) \| p(z_j))

    Each term is a Monte Carlo average over codes; the sums hold for every code. ``"exact"`` evaluates q(z) over all N
    data, so that each term is unbiased for these data: O(N^2) pairs, never more than a chunk of them in memory.
    The others see ``minibatch`` data at a time, O(N B), and are biased: the information too high and the marginal KL
    too low, by little for ``"mss"`` and by up to log N for ``"mws"``. A standard error counts the spread
    over the data too, as if they were drawn anew; of numbers about these very data it is too large. Data whose latent
    variables `poutine.mask` takes out have no code: they take no part in q(z), and each of their terms is 0.

    Args:
        model: A Pyro program with a data plate.
        guide: Its guide, of one latent variable or several, without auxiliary ones. Where the posterior (an
            `Independent` of elementwise distributions) or the prior does not fall into dimensions, as flows do not, the
            terms that need it are left out.
        x: Data of shape ``(N, *event)``, usually the training set: it is its codes that a prior has to match.
        aggregate: How q(z) is computed: ``"exact"``, by `minibatch_stratified`, or by `minibatch_weighted`.
        minibatch: Number B of data in a minibatch, at least; what would be left over makes the others a little
            larger. B^2 L numbers are in memory.
        num_samples: Codes of each datum.
        num_data: Size of a random subset; ``None`` is all. The information is at most its logarithm.
        seed: Seed of the subset, the codes and the minibatches.
        batch_size: Largest number of data whose guide runs at once.
        max_elements: Memory bound, as in `log_likelihood`.

    Returns:
        `ElboSurgery`.

    Raises:
        ValueError: If x is empty, a number is out of range, nothing is latent, the guide has auxiliary variables, or
            a mask takes out a part of a datum's latent variables.

    Source: Hoffman & Johnson (NIPS 2016 workshop on advances in approximate Bayesian inference), "ELBO surgery";
    Chen, Li, Grosse & Duvenaud (NeurIPS 2018), arXiv:1802.04942, eq. 2 and appendix C.
    """
    if aggregate not in get_args(Aggregate):
        raise ValueError(f"elbo_surgery got aggregate={aggregate!r}: it must be one of {get_args(Aggregate)}.")
    numbers = {
        "num_samples": num_samples,
        "minibatch": minibatch,
        "batch_size": batch_size,
        "max_elements": max_elements,
    }
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"elbo_surgery got {name}={value}: at least 1 is needed.")
    x = x[random_subset(len(x), num_data, seed=seed).to(x.device)]
    density = partial(_exact, batch_size=batch_size, max_elements=max_elements)
    if aggregate != "exact":
        density = partial(_minibatches, estimator=aggregate, size=minibatch)
    totals: dict[str, Tensor] = {}
    with frozen(model, guide, seed=seed, device=x.device):
        for _ in range(num_samples):
            codes = draw_codes(model, guide, x, batch_size=batch_size)
            here, seen = codes.present, codes[codes.present]
            for name, part in _parts(seen, *density(guide, seen, x[here.to(x.device)])).items():
                values = part.new_zeros(len(x), *part.shape[1:])  # without a code there is no cost
                values[here] = part
                totals[name] = totals.get(name, 0.0) + values / num_samples
    how = "exact q(z)" if aggregate == "exact" else f"{aggregate.upper()}, minibatches of {min(minibatch, len(x))}"
    return _named(totals, aggregate, f"{how}, {num_samples} sample{'s' * (num_samples != 1)}", x)


def _exact(
    guide: Callable[..., Any], codes: LatentCodes, x: Tensor, *, batch_size: int, max_elements: int
) -> tuple[Tensor, Tensor | None]:
    """Evaluate q(z) over all data, for the codes of all data."""
    return log_mixture(
        guide, codes.values, x, dimensions=codes.factorised, batch_size=batch_size, max_elements=max_elements
    )


def _minibatches(
    guide: Callable[..., Any], codes: LatentCodes, x: Tensor, *, estimator: Aggregate, size: int
) -> tuple[Tensor, Tensor | None]:
    """Estimate q(z) for the codes of each of some random minibatches."""
    estimate = partial({"mss": minibatch_stratified, "mws": minibatch_weighted}[estimator], total=len(x))
    order = torch.randperm(len(x))
    joint, single = torch.empty(len(x), dtype=torch.float64), list[Tensor]()
    for index in order.tensor_split(max(1, len(x) // size)):
        scores = PairScores(guide, x[index.to(x.device)])(codes[index].values, dimensions=codes.factorised)
        joint[index] = estimate(scores.sum(-1) if codes.factorised else scores).cpu()
        if codes.factorised:
            single.append(estimate(scores).cpu())
    return joint, torch.cat(single)[order.argsort()] if single else None


def _parts(codes: LatentCodes, joint: Tensor, single: Tensor | None) -> dict[str, Tensor]:
    """Compute the terms of every code from log q(z), shape ``(N,)``, and log q(z_j), shape ``(N, L)``."""
    parts = {"kl": codes.log_q - codes.log_p, "information": codes.log_q - joint, "marginal": joint - codes.log_p}
    if single is not None:
        parts["correlation"] = joint - single.sum(-1)
        if codes.log_p_by_dimension is not None:
            parts["dimensions"] = single - codes.log_p_by_dimension
    return parts


def _named(parts: dict[str, Tensor], aggregate: Aggregate, method: str, x: Tensor) -> ElboSurgery:
    """Give the terms their names, which say on which side of the truth they lie."""
    estimate = partial(Estimate, method=method, noun="image" if x.dim() >= 3 else "datum")
    above, below, near = ("=", "=", "=") if aggregate == "exact" else ("<=", ">=", "~")
    correlation, dimensions = parts.get("correlation"), parts.get("dimensions")
    return ElboSurgery(
        estimate("average-KL =", parts["kl"]),
        estimate(f"information {above}", parts["information"]),
        estimate(f"marginal-KL {below}", parts["marginal"]),
        None if correlation is None else estimate(f"total-correlation {near}", correlation),
        () if dimensions is None else tuple(estimate(f"KL(z_{j}) {below}", d) for j, d in enumerate(dimensions.T, 1)),
    )
