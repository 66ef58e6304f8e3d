# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Four densities in the plane, known up to their normaliser, that a flow has to bend a normal distribution into."""

import torch
from torch import Tensor
from torch.nn.functional import relu

from pyro_dgm.distributions.unnormalized import Unnormalized


class Potential(Unnormalized):
    r"""Score points of the plane by one of Rezende & Mohamed's potentials, log p(z) = -U(z) + constant.

    U1 is a ring with two bright sides. U2, U3 and U4 are waves along :math:`z_1` without end, so they have no
    normaliser: here they get a steep wall, :math:`\tfrac12 ((|z_1| - 4)_+ / 0.1)^2`, at the sides of the box
    [-4, 4] that the paper draws. This makes them proper, and comparisons in nats possible.

    Args:
        number: Which of them, 1 to 4.

    Raises:
        ValueError: If there is no such potential.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770, table 1.

    Example:
        >>> Potential(1).log_prob(torch.zeros(3, 2)).shape
        torch.Size([3])
        >>> round(Potential(1).log_z().item(), 4)
        1.8775
    """

    def __init__(self, number: int) -> None:
        if number not in (1, 2, 3, 4):
            raise ValueError(f"Potential got number={number}: there are four of them, 1 to 4.")
        self.number = number
        super().__init__(lambda z: -_potential(number, z), event_shape=(2,))

    def grid(self, *, side: int = 400, reach: float = 7.0) -> tuple[Tensor, Tensor]:
        """Cover the density with squares.

        Args:
            side: Number of squares in each direction.
            reach: The grid goes from -reach to reach, in both directions.

        Returns:
            Float64 midpoints of shape ``(side * side, 2)``, and the area of a square.
        """
        edge = 2 * reach / side
        line = -reach + edge * (torch.arange(side, dtype=torch.float64) + 0.5)
        return torch.cartesian_prod(line, line), torch.tensor(edge**2, dtype=torch.float64)

    def log_z(self) -> Tensor:
        """Compute the log of the normaliser, in nats, by quadrature on the grid in float64."""
        points, area = self.grid()
        return self.log_prob(points).logsumexp(0) + area.log()


def _potential(number: int, z: Tensor) -> Tensor:
    z1, z2 = z.unbind(-1)
    if number == 1:
        ring = 0.5 * ((z.norm(dim=-1) - 2) / 0.4).square()
        return ring - torch.logaddexp(-0.5 * ((z1 - 2) / 0.6).square(), -0.5 * ((z1 + 2) / 0.6).square())
    wall = 0.5 * (relu(z1.abs() - 4) / 0.1).square()
    wave = z2 - (torch.pi * z1 / 2).sin()
    if number == 2:
        return wall + 0.5 * (wave / 0.4).square()
    first = 0.35 if number == 3 else 0.4
    shift = 3 * (-0.5 * ((z1 - 1) / 0.6).square()).exp() if number == 3 else 3 * torch.sigmoid((z1 - 1) / 0.3)
    other = wave + shift
    return wall - torch.logaddexp(-0.5 * (wave / first).square(), -0.5 * (other / 0.35).square())
