# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Free bits: some nats of KL cost nothing extra, so that a latent variable is not given up early in training."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import (
    data_mean,
    kl_terms,
    kl_terms_by_dimension,
    require_one_scale,
    require_priors,
    sum_terms,
)
from pyro_dgm.infer.log_weights import LogWeights

Per = Literal["site", "dimension", "channel", "all"]
Over = Literal["batch", "datum"]


class FreeBits(KLControl):
    r"""Charge each group of latent dimensions at least lambda nats.

    .. math:: \mathrm{cost} = \sum_j \max\bigl(\lambda, \mathbb{E}_{x \in \text{batch}} \mathrm{KL}_j(x)\bigr)

    Below lambda a group's cost is constant: the gradient of its KL is exactly zero there, and above it is that of the
    KL. The objective never exceeds the ELBO, to which it is equal where every group has at least lambda nats.

    Args:
        nats: lambda, for each group. 0 is the plain ELBO, to the bit. Kingma et al. tried 0.125 to 8; the sum over
            all groups should stay below the KL that a trained model has.
        per: What a group is: ``"site"``, a latent variable; ``"dimension"``, one of its numbers; ``"channel"``, one
            index of its first event dimension, as a feature map (Kingma et al.); ``"all"``, all variables together,
            which is max(lambda, KL).
        over: What the maximum is of: ``"batch"``, the mean over the batch; ``"datum"``, the KL of each datum, which
            leaves no single one below lambda. Where several processes train together, the
            batch is each one's own.

    Raises:
        ValueError: If ``nats`` is negative or no number, or an option is unknown; in use, if the groups have no KL
            of their own, or the sites have different scales.

    Source: Kingma et al. (NeurIPS 2016), arXiv:1606.04934, appendix C.8, eq. 15; per dimension and datum Li et al.
    (EMNLP 2019), arXiv:1909.00868. With sampled terms the maximum of a noisy mean is slightly too
    large; the closed form is used where there is one, unless ``analytic_kl=False``.

    >>> from pyro_dgm.infer import ELBO
    >>> ELBO(kl=FreeBits(0.5, per="dimension")).kl.nats
    0.5
    """

    def __init__(self, nats: int | float = 0.5, *, per: Per = "site", over: Over = "batch") -> None:
        if not 0 <= nats < math.inf:
            raise ValueError(f"FreeBits got nats={nats}: it takes a number of nats from 0 (the plain ELBO) on.")
        for name, value, known in (("per", per, get_args(Per)), ("over", over, get_args(Over))):
            if value not in known:
                raise ValueError(f"FreeBits got {name}={value!r}: it must be one of {', '.join(map(repr, known))}.")
        self.nats, self.per, self.over = nats, per, over

    @property
    def idle(self) -> bool:
        """Whether nothing is free."""
        return self.nats == 0

    def cost(self, weights: LogWeights, *, analytic: bool) -> Tensor:
        """Charge every group with its KL or lambda, whichever is more, shape ``(K, *batch)``."""
        require_one_scale(weights, self)
        return sum_terms({name: self._charge(g, weights) for name, g in self._groups(weights, analytic).items()})

    def _groups(self, weights: LogWeights, analytic: bool) -> dict[str, Tensor]:  # noqa: FBT001 - named by cost
        """List the terms of the groups by site, shape ``(K, *batch, *groups)``."""
        if self.per in ("dimension", "channel"):
            found = kl_terms_by_dimension(weights, analytic=analytic)
            keep = _rank(weights) + (self.per == "channel")
            return found if self.per == "dimension" else {name: _sum_from(keep, term) for name, term in found.items()}
        if self.per == "all":
            return {"": sum_terms(kl_terms(weights, analytic=analytic))}
        require_priors(weights)
        return kl_terms(weights, analytic=analytic)

    def _charge(self, terms: Tensor, weights: LogWeights) -> Tensor:
        mean = data_mean(terms, weights) if self.over == "batch" else terms.mean(0)
        return _sum_from(_rank(weights), torch.where(mean > self.nats, terms, self.nats))


def _rank(weights: LogWeights) -> int:
    """Count the dimensions of particles and data."""
    return next(iter(weights.guide_terms.values())).dim()


def _sum_from(first: int, terms: Tensor) -> Tensor:
    """Sum over all dimensions from one on."""
    return terms.sum(list(range(first, terms.dim()))) if terms.dim() > first else terms
