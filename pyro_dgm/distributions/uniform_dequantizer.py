# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Uniform dequantisation: integers become continuous by noise between 0 and 1."""

from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.dequantizer import Dequantizer
from pyro_dgm.distributions.unit_cells import UnitCells


class UniformDequantizer(Dequantizer):
    r"""Add uniform noise: v = x + u, u from :math:`[0, 1)^D`.

    .. math:: \log P(x) = \log \int_{[0,1)^D} p(x + u)\, du \ge \mathbb{E}_u \log p(x + u)

    As a guide, log q = 0, and the ELBO is the right-hand side. Rounding never carries v to x + 1.

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)`` or ``(3, 32, 32)``.
        levels: Number L of levels: data are integers 0 ... L - 1.

    Raises:
        ValueError: If a size is not positive, there is none, or there are fewer than 2 levels.

    Source: Theis, van den Oord & Bethge (ICLR 2016), arXiv:1511.01844, section 3.1.

    Example:
        >>> q = UniformDequantizer((8, 8), 17)(torch.randint(17, (5, 8, 8)))
        >>> q.rsample().shape, q.log_prob(q.rsample())
        (torch.Size([5, 8, 8]), tensor([0., 0., 0., 0., 0.]))
    """

    def distribution(self, low: Tensor) -> Distribution:
        """Give the uniform distribution over the cells."""
        return UnitCells(low, len(self.shape))
