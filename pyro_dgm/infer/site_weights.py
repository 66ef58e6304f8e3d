# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A weight for the KL of each latent variable, where one beta for all is too coarse."""

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import kl_terms, sum_terms
from pyro_dgm.infer.log_weights import LogWeights


class SiteWeights(KLControl):
    r"""Weigh the KL term of each site by a beta of its own.

    .. math:: \mathrm{cost} = \sum_s \beta_s \, \mathrm{KL}_s

    Args:
        weights: Beta by the names of latent sites, 0 or more; sites that are not named have 1. The ELBO's ``beta``
            multiplies all of them.

    Raises:
        ValueError: If a weight is negative or infinite; in use, if there is no such site.

    Source: Higgins et al. (ICLR 2017), with one beta for all.

    >>> SiteWeights({"z": 4.0}).weights
    {'z': 4.0}
    """

    linear: ClassVar[bool] = True

    def __init__(self, weights: Mapping[str, int | float]) -> None:
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"SiteWeights got {weight} for {name!r}: a weight of the KL is a number from 0 on.")
        self.weights = dict(weights)

    def cost(self, weights: LogWeights, *, analytic: bool) -> Tensor:
        """Add up the weighed terms, shape ``(K, *batch)``."""
        terms = kl_terms(weights, analytic=analytic)
        unknown = sorted(self.weights.keys() - terms.keys())
        if unknown:
            raise ValueError(f"SiteWeights names {unknown}, but the latent sites are {sorted(terms)}.")
        return sum_terms({name: self.weights.get(name, 1.0) * term for name, term in terms.items()})
