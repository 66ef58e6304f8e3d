# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""States of many chains with the two log-densities of an annealing path and their gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tempered:
    r"""Points u with all that is known about the path there, for any inverse temperature.

    .. math:: \log f_\beta = \log s + \beta\, \ell \quad (\text{from the prior, } \ell = \log p(x \mid z)), \qquad
              \log f_\beta = (1 - \beta) \log s + \beta\, \ell \quad (\ell = \log p(x, z))

    Attributes:
        u: The points, shape ``(C, B, D)``.
        start: log s, where the path begins, shape ``(C, B)``.
        end: The log-density that comes in with beta, shape ``(C, B)``.
        start_slope: Gradient of ``start``, shape ``(C, B, D)``.
        end_slope: Gradient of ``end``, shape ``(C, B, D)``.
        from_prior: Whether ``end`` is added to ``start`` (a path from the prior), or takes its place.
    """

    u: Tensor
    start: Tensor
    end: Tensor
    start_slope: Tensor
    end_slope: Tensor
    from_prior: bool

    def log_prob(self, beta: float | int) -> Tensor:
        """Give log f_beta, shape ``(C, B)``."""
        return self._blend(self.start, self.end, beta)

    def gradient(self, beta: float | int) -> Tensor:
        """Give its gradient, shape ``(C, B, D)``."""
        return self._blend(self.start_slope, self.end_slope, beta)

    def rise(self, before: float | int, after: float | int) -> Tensor:
        """Give log f_after - log f_before in float64, shape ``(C, B)``: a step's log-weight."""
        change = self.end.double() if self.from_prior else self.end.double() - self.start.double()
        return (after - before) * change

    def where(self, chosen: Tensor, other: "Tempered") -> "Tempered":
        """Take this state where ``chosen``, shape ``(C, B)``, is true, and the other elsewhere."""
        wide = chosen.unsqueeze(-1)
        return Tempered(
            torch.where(wide, self.u, other.u),
            torch.where(chosen, self.start, other.start),
            torch.where(chosen, self.end, other.end),
            torch.where(wide, self.start_slope, other.start_slope),
            torch.where(wide, self.end_slope, other.end_slope),
            self.from_prior,
        )

    def _blend(self, start: Tensor, end: Tensor, beta: float | int) -> Tensor:
        if beta == 0:  # where the likelihood is zero its logarithm times 0 would be NaN
            return start
        if self.from_prior:
            return start + beta * end
        return end if beta == 1 else (1 - beta) * start + beta * end
