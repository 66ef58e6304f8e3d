# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A capacity holds the KL at a number of nats, which training usually raises, so that one factor after another fits."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import data_mean, kl_terms, require_one_scale, sum_terms
from pyro_dgm.infer.log_weights import LogWeights

Over = Literal["batch", "datum"]


class Capacity(KLControl):
    r"""Charge the distance of the whole KL from a target C.

    .. math:: \mathrm{cost} = \gamma \, \bigl|\, \mathrm{KL} - C \,\bigr|

    Args:
        nats: C, kept as the 0-dim tensor ``.nats``, so that a schedule can change it in place, as ``Trainer`` does
            with ``capacity_epochs`` or ``capacity_steps``: it then rises linearly from 0 to this value. With 0 the
            closed-form KL is charged as in a beta-VAE of beta = ``weight``.
        weight: gamma, 0 or more. Burgess et al. took 1000 and 25 nats.
        over: Whether the distance is that of the batch's mean KL (as in disentanglement_lib), or of the KL of each
            ``"datum"`` (as in pythae); these are different objectives, and the second is never smaller.

    Raises:
        ValueError: If a number is negative or infinite, or ``over`` is unknown; in use, if the sites have different
            scales.

    Source: Burgess et al. (2018), arXiv:1804.03599, eq. 8.

    >>> Capacity(25, weight=1000).nats
    tensor(25., dtype=torch.float64)
    """

    def __init__(self, nats: int | float = 25.0, *, weight: int | float = 1000.0, over: Over = "batch") -> None:
        for name, value in (("nats", nats), ("weight", weight)):
            if not 0 <= value < math.inf:
                raise ValueError(f"Capacity got {name}={value}: it takes a number from 0 on.")
        if over not in get_args(Over):
            raise ValueError(f"Capacity got over={over!r}: it must be one of {', '.join(map(repr, get_args(Over)))}.")
        self.nats = torch.tensor(float(nats), dtype=torch.float64, device="cpu")  # 0-dim: mixes with any other
        self.weight, self.over = weight, over

    def cost(self, weights: LogWeights, *, analytic: bool) -> Tensor:
        """Charge the distance, shape ``(K, *batch)``; with ``over="batch"`` it is that of the mean."""
        require_one_scale(weights, self)
        kl = sum_terms(kl_terms(weights, analytic=analytic))
        mean = data_mean(kl, weights) if self.over == "batch" else kl.mean(0)
        return self.weight * (mean.detach() - self.nats).sign() * (kl - self.nats)
