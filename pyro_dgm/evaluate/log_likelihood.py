# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The marginal log-likelihood of data under a latent variable model, by importance sampling."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.pareto import tail_shape
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS, weigh
from pyro_dgm.evaluate.weight_sums import WeightSums
from pyro_dgm.infer.log_weights import LogWeights


def log_likelihood(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    num_samples: int = 5000,
    num_data: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> Estimate:
    r"""Estimate -log p(x) for each datum with importance samples from the guide.

    .. math:: -\log \hat p(x) = -\log \frac{1}{K} \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    In expectation this lies above -log p(x) and falls to it as K grows, whatever the guide. It is always at beta = 1,
    without subsampling scales, in evaluation mode and without gradients; the caller's random stream is untouched. The
    sums are in float64. How particles and data are chunked changes which random numbers a datum gets, nothing else.
    Where nothing is latent, as in a flow model of the data, the likelihood is exact and computed once.

    Args:
        model: A Pyro program with a data plate, called as ``model(x)``.
        guide: Its guide, called as ``guide(x)``.
        x: Data of shape ``(N, *event)``, on the model's device.
        num_samples: Importance samples for each datum, K; 5000 is what published tables use.
        num_data: Evaluate a random subset of this size, the same for the same seed (`random_subset`); ``None`` is all.
        seed: Seed of the subset and of the samples.
        batch_size: Largest number of data at once.
        max_elements: Memory bound: no tensor that the programs make for a chunk of particles and data has more elements
            (unless one particle of one datum needs more). A few such tensors are alive at a time.

    Returns:
        An `Estimate` of the NLL in nats, lower is better: per-datum values, effective sample sizes, k-hat (`pareto_k`,
        from 21 samples on), standard error.

    Raises:
        ValueError: If x is empty, a number is out of range, the pair has no data plate, or a weight is not a number.

    Source: Rezende, Mohamed & Wierstra (ICML 2014), arXiv:1401.4082, appendix E; Burda, Grosse & Salakhutdinov
    (ICLR 2016), arXiv:1509.00519, section 5.
    """
    sums = weigh(
        model,
        guide,
        x,
        partial(_importance, num_samples=num_samples),
        num_samples=num_samples,
        num_data=num_data,
        seed=seed,
        batch_size=batch_size,
        max_elements=max_elements,
    )
    exact, largest = bool(sums["exact"].all()), sums.get("largest")
    return Estimate(
        "NLL =" if exact else "NLL <=",
        checked_nll(sums["nll"]),
        method="exact" if exact else f"IS, {num_samples} sample{'s' * (num_samples != 1)}",
        ess=None if exact else sums["ess"],
        noun="image" if x.dim() >= 3 else "datum",
        density=x.is_floating_point(),
        k_hat=None if exact or largest is None else tail_shape(largest.mT),
    )


def _importance(chunks: Iterator[LogWeights], *, num_samples: int) -> dict[str, Tensor]:
    chunk = next(chunks)
    first, exact = chunk.log_w, not chunk.guide_terms
    sums = WeightSums(first.shape[1], first.device, 0 if exact else num_samples)
    sums.add(first)
    for chunk in chunks:
        sums.add(chunk.log_w)
    found = {"nll": -sums.log_mean(), "ess": sums.ess(), "exact": torch.full_like(first[0], exact)}
    return {**found, "largest": sums.largest.mT} if len(sums.largest) else found  # k-hat is fitted to all data at once


def checked_nll(nll: Tensor) -> Tensor:
    """Refuse NaN and an infinite density; an NLL of plus infinity is an honest answer: the model excludes the datum."""
    wrong = nll.isnan() | nll.isneginf()
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {len(nll)} data have a log-likelihood that is NaN or +inf (the first is number "
            f"{int(wrong.nonzero()[0])} of those evaluated). Check x and the weights for NaN, or evaluate in float64."
        )
    return nll
