# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The aggregate posterior is what the codes of all data look like together: the mixture of their posteriors."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.pair_scores import Codes, PairScores
from pyro_dgm.evaluate.weigh import BATCH_SIZE, MAX_ELEMENTS


def aggregate_posterior(
    guide: Callable[..., Any],
    z: Tensor | Codes,
    x: Tensor,
    *,
    dimensions: bool = False,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_elements: int = MAX_ELEMENTS,
) -> Tensor:
    r"""Score codes under the mixture of the posteriors of all data, exactly.

    .. math:: \log q(z) = \log \frac{1}{N} \sum_{n=1}^N q(z \mid x_n)

    Among all priors this one gives the data the highest average ELBO. Every pair of a code and a datum is scored,
    O(M N), in the memory of one chunk of pairs.

    Args:
        guide: A guide with a data plate, called as ``guide(x)``.
        z: M codes of its latent variable, shape ``(M, *latent)``; or, where it has several, one tensor for each site.
        x: Data of shape ``(N, *event)``.
        dimensions: Score each dimension by itself, log q(z_j); only for posteriors of independent dimensions.
        seed: Seed of whatever the guide draws besides.
        batch_size: Largest number of data at once.
        max_elements: Memory bound, as in `log_likelihood`.

    Returns:
        Log-densities in nats, float64 on the CPU, shape ``(M,)``, or ``(M, L)`` by dimension.

    Raises:
        ValueError: If z or x is empty, a site is missing, or dimensions are asked of a posterior that has none.

    Source: Hoffman & Johnson (NIPS 2016 workshop on advances in approximate Bayesian inference), "ELBO surgery";
    Tomczak & Welling (AISTATS 2018), arXiv:1705.07120, section 2.

    >>> import pyro, pyro.distributions as dist
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x, 1.0).to_event(1))
    >>> aggregate_posterior(guide, torch.zeros(1, 2), torch.zeros(5, 2))  # five times the same N(0, I)
    tensor([-1.8379], dtype=torch.float64)
    """
    with frozen(guide, seed=seed, device=x.device):
        joint, single = log_mixture(
            guide, z, x, dimensions=dimensions, batch_size=batch_size, max_elements=max_elements
        )
    return joint if single is None else single


def log_mixture(
    guide: Callable[..., Any],
    z: Tensor | Codes,
    x: Tensor,
    *,
    dimensions: bool,
    batch_size: int,
    max_elements: int,
) -> tuple[Tensor, Tensor | None]:
    """Score codes jointly and, if wanted, by dimension in the same pass; run it inside `frozen`.

    Returns:
        log q(z), shape ``(M,)``, and log q(z_j), shape ``(M, L)``, or ``None``.
    """
    size = min(map(len, [z] if isinstance(z, Tensor) else z.values()), default=0)
    if size < 1 or len(x) < 1:
        raise ValueError(f"aggregate_posterior got {size} codes and {len(x)} data: at least one of each is needed.")
    joint, single = torch.tensor(-math.inf, dtype=torch.float64), torch.tensor(-math.inf, dtype=torch.float64)
    for batch in x.split(batch_size):  # the guide runs once for each batch; codes go by in chunks
        scores = PairScores(guide, batch)
        codes = scores.named(z)
        chunk = scores.chunk(codes, dimensions=dimensions, limit=max_elements)
        parts = []
        for start in range(0, size, chunk):
            part = {name: value[start : start + chunk] for name, value in codes.items()}
            parts.append(_over_data(scores(part, dimensions=dimensions)))
        joint = torch.logaddexp(joint, torch.cat([part[0] for part in parts]))
        if dimensions:
            single = torch.logaddexp(single, torch.cat([part[1] for part in parts]))
    return joint - math.log(len(x)), single - math.log(len(x)) if dimensions else None


def _over_data(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Sum q(z_m | x_b) over the data b: jointly, shape ``(m,)``, and by dimension, ``(m, L)`` if scores have them."""
    if scores.dim() == 2:
        joint = scores.logsumexp(1).cpu()
        return joint, joint
    return scores.sum(-1).logsumexp(1).cpu(), scores.logsumexp(1).cpu()
