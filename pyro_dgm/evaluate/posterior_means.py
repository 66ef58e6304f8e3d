# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The posterior mean of each latent variable is what a guide believes about a datum, without the noise."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.infer.particles import sample_sites

# Numbers of a site that are drawn at once. One sample at a time spends most of its time between operations; many more
# leave the cache, and memory is to stay bounded.
MAX_ELEMENTS = 2**17


def posterior_means(
    guide: Callable[..., Any], x: Tensor, *, num_samples: int, skip_labels: bool = False
) -> dict[str, Tensor]:
    r"""Give :math:`\mathbb{E}_q[z_s \mid x, \mathrm{pa}(z_s)]` for each site s, its parents being one sample.

    Args:
        guide: A guide with a data plate.
        x: Data of shape ``(B, *event)``.
        num_samples: Samples that estimate a mean without a closed form (a flow's).
        skip_labels: Leave out the sites of `is_label`, which have no mean; otherwise they are refused.

    Returns:
        For each site of the guide its mean, shape ``(B, *latent)``, on the device of x.

    Raises:
        ValueError: If ``num_samples < 1``, a site is not one value for each datum, or its mean is NaN.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} was given: at least 1 is needed.")
    means = {}
    for name, site in sample_sites(poutine.trace(guide).get_trace(x)).items():
        if skip_labels and is_label(site["fn"]):
            continue
        mean = _mean(site["fn"], num_samples)
        if mean.dim() < 1 or len(mean) != len(x):
            raise ValueError(
                f"The guide's site {name!r} has a mean of shape {tuple(mean.shape)} for {len(x)} data: it needs one "
                f"row for each datum. Put the site inside pyro.plate('data', len(x))."
            )
        if mean.isnan().any():
            raise ValueError(
                f"The guide's site {name!r} has a posterior mean that is NaN. Check x and the weights; a categorical "
                f"variable has a mean only as pyro.distributions.OneHotCategorical."
            )
        means[name] = mean
    return means


def is_label(distribution: Any) -> bool:
    """Tell whether values are numbers of categories, as a mixture's components: their order means nothing.

    >>> is_label(dist.Categorical(torch.ones(2, 3)).to_event(1)), is_label(dist.OneHotCategorical(torch.ones(3)))
    (True, False)
    """
    while isinstance(
        distribution, (torch.distributions.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
    ):
        distribution = distribution.base_dist
    return isinstance(distribution, torch.distributions.Categorical)


def _mean(distribution: Any, num_samples: int) -> Tensor:
    try:
        mean: Tensor = distribution.mean
    except NotImplementedError:  # how torch says that a distribution, as a flow's, has no known mean
        mean = distribution.sample()
        at_once = max(1, MAX_ELEMENTS // max(1, mean.numel()))
        for done in range(1, num_samples, at_once):
            mean = mean + distribution.sample(torch.Size([min(at_once, num_samples - done)])).sum(0)
        mean = mean / num_samples
    return mean
