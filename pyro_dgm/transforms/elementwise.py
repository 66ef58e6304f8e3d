# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of increasing maps of one number, whose parameters a network gives: what couplings are made of."""

from abc import ABC, abstractmethod

from torch import Tensor


class Elementwise(ABC):
    """An increasing map of the real line onto itself, applied to every element with raw parameters of its own.

    Autoregressive flows and couplings differ in what a network may see; which map they apply to an element is one of
    these. Raw numbers are unconstrained: any must give an increasing map, and zeros the identity (or nearly).

    To write one: set ``size`` and implement the two functions, pure and without host syncs. Rows are independent.

    Attributes:
        size: How many raw numbers an element needs.
    """

    size: int

    @abstractmethod
    def forward_and_logdet(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every element.

        Args:
            x: Shape ``(*batch)``.
            raw: Shape ``(*batch, size)``.

        Returns:
            y and the log of its derivative, log dy/dx, both of shape ``(*batch)``.
        """

    @abstractmethod
    def inverse_and_logdet(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map every element back: x and log dx/dy, both of shape ``(*batch)``."""
