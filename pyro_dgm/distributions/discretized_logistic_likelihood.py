# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A likelihood for grey values: every pixel is a logistic density cut into the levels."""

from collections.abc import Iterable

from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.broad_log_scale import broad_log_scale
from pyro_dgm.distributions.discretized_logistic import DiscretizedLogistic
from pyro_dgm.distributions.likelihood import Likelihood


class DiscretizedLogisticLikelihood(Likelihood):
    """Read two raw numbers per pixel, shape ``(*batch, 2, *shape)``, as a centre and a scale.

    The first is the centre on [-1, 1], unconstrained; the second goes through
    :func:`~pyro_dgm.distributions.broad_log_scale.broad_log_scale`. Raw numbers of zero give a broad hump.

    Args:
        shape: Shape of one datum, e.g. ``(28, 20)``.
        levels: Number L of levels, e.g. 256.

    Raises:
        ValueError: If ``shape`` or ``levels`` is out of range.

    Source: Salimans et al. (ICLR 2017), arXiv:1701.05517, section 2.1, with a single component.

    Example:
        >>> DiscretizedLogisticLikelihood((28, 20), 256)(torch.zeros(5, 2, 28, 20)).event_shape
        torch.Size([28, 20])
    """

    def __init__(self, shape: Iterable[int], levels: int) -> None:
        super().__init__(shape, levels, parameters=2)

    def pixels(self, raw: Tensor) -> Distribution:
        """Return discretised logistics of ``batch_shape`` ``(*batch, *shape)``."""
        loc, scale = raw.unbind(self.parameter_dim)
        return DiscretizedLogistic(loc, broad_log_scale(scale, self.levels), levels=self.levels)
