# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Score every code under the posterior of every datum: what the aggregate posterior is made of."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.evaluate.by_dimension import by_dimension
from pyro_dgm.evaluate.footprint import footprint
from pyro_dgm.infer.latent_site import elementwise
from pyro_dgm.infer.particles import PLATE, plate_nesting, sample_sites

Codes = dict[str, Tensor]


class PairScores:
    """The posteriors of a batch of data, ready to score any codes; make and use it inside `frozen`.

    A guide of one latent variable runs once for all codes; one of several runs anew for each chunk of codes, for then
    a posterior depends on the code.

    Args:
        guide: A guide with a data plate.
        x: Data of shape ``(B, *event)``.
    """

    def __init__(self, guide: Callable[..., Any], x: Tensor) -> None:
        self.guide, self.x = guide, x
        trace = poutine.trace(guide).get_trace(x)
        self.sites = sample_sites(trace)
        self.nesting = plate_nesting(trace)

    def named(self, z: Tensor | Codes) -> Codes:
        """Give codes the name of the guide's latent variable, and check that none is missing."""
        if isinstance(z, Tensor):
            if len(self.sites) != 1:
                raise ValueError(
                    f"Codes came as one tensor and the guide has the sites {sorted(self.sites)}: give a dictionary "
                    f"with one tensor for each."
                )
            return dict.fromkeys(self.sites, z)
        if z.keys() != self.sites.keys():
            raise ValueError(
                f"Codes came for the sites {sorted(z)} and the guide has {sorted(self.sites)}: give one for each."
            )
        return z

    def __call__(self, codes: Codes, *, dimensions: bool = False) -> Tensor:
        """Score M codes for B data: log q(z_m | x_b), float64 of shape ``(M, B)``, or ``(M, B, L)`` by dimension."""
        rows = {name: value.unsqueeze(1) for name, value in codes.items()}  # (M, 1, *plates, *event)
        if len(self.sites) > 1:
            return self._conditional(rows)
        ((name, site),) = self.sites.items()
        if not dimensions:
            return _pairs(site["fn"].log_prob(rows[name]))
        single = elementwise(site["fn"])
        if single is None:
            raise ValueError(
                f"The posterior of {name!r} ({type(site['fn']).__name__}) does not say that its dimensions are "
                f"independent, so there is no density of one of them. Ask for the joint density (dimensions=False)."
            )
        return by_dimension(single.log_prob(rows[name]), 2).double()

    def chunk(self, codes: Codes, *, dimensions: bool, limit: int) -> int:
        """How many codes may be scored at once, if no tensor is to have more elements than ``limit``."""

        def score(index: Tensor) -> Tensor:
            return self({name: value[index.to(value.device)] for name, value in codes.items()}, dimensions=dimensions)

        return max(1, limit // footprint(score, torch.zeros(1, dtype=torch.int64)))

    def _conditional(self, rows: Codes) -> Tensor:
        """Run the guide on the codes, once for each of them and the batch."""
        size = len(next(iter(rows.values())))

        def run() -> None:
            with pyro.plate(PLATE, size, dim=-self.nesting - 1):
                self.guide(self.x)

        trace = poutine.trace(poutine.condition(run, data=rows)).get_trace()
        trace.compute_log_prob()
        shape = (size, len(self.x))
        return sum(
            (_pairs(trace.nodes[name]["unscaled_log_prob"]).expand(shape) for name in rows),
            start=self.x.new_zeros(shape, dtype=torch.float64),
        )


def _pairs(log_prob: Tensor) -> Tensor:
    """Sum a log-probability over all but codes and data."""
    return (log_prob if log_prob.dim() == 2 else log_prob.flatten(2).sum(-1)).double()
