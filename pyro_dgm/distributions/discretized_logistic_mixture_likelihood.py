# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A likelihood for grey values with several humps: every pixel is a mixture of logistic densities cut into levels."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.broad_log_scale import broad_log_scale
from pyro_dgm.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_dgm.distributions.likelihood import Likelihood


class DiscretizedLogisticMixtureLikelihood(Likelihood):
    """Read 3 J raw numbers per pixel, shape ``(*batch, 3 J, *shape)``, as J weights, then J centres, then J scales.

    Centres are unconstrained and start evenly spread over [-1, 1], for components that start equal would stay equal;
    scales go through :func:`~pyro_dgm.distributions.broad_log_scale.broad_log_scale`. The colours of a pixel are
    independent of one another given the raw numbers, each with a mixture of its own.

    Args:
        shape: Shape of one datum, e.g. ``(3, 32, 32)``.
        levels: Number L of levels, e.g. 256.
        components: Number J of components; the source found 5 enough.

    Raises:
        ValueError: If ``shape``, ``levels`` or ``components`` is out of range.

    Source: Salimans et al. (ICLR 2017), arXiv:1701.05517, section 2.1.

    Example:
        >>> DiscretizedLogisticMixtureLikelihood((28, 20), 256)(torch.zeros(2, 15, 28, 20)).event_shape
        torch.Size([28, 20])
    """

    spread: Tensor

    def __init__(self, shape: Iterable[int], levels: int, *, components: int = 5) -> None:
        if not isinstance(components, int) or components < 1:
            raise ValueError(
                f"DiscretizedLogisticMixtureLikelihood got components={components}: it must be a positive integer."
            )
        super().__init__(shape, levels, parameters=3 * components)
        spread = (2 * torch.arange(components) + 1) / components - 1
        self.register_buffer("spread", spread, persistent=False)

    def pixels(self, raw: Tensor) -> Distribution:
        """Return mixtures of ``batch_shape`` ``(*batch, *shape)``."""
        logits, loc, scale = raw.movedim(self.parameter_dim, -1).chunk(3, dim=-1)  # views, (*batch, *shape, J)
        loc = loc + self.spread.to(loc.dtype)
        return DiscretizedLogisticMixture(logits, loc, broad_log_scale(scale, self.levels), levels=self.levels)
