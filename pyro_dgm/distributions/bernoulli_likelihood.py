# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A likelihood for black-and-white data: every pixel is a coin flip."""

from collections.abc import Iterable

from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.bernoulli import Bernoulli
from pyro_dgm.distributions.likelihood import Likelihood


class BernoulliLikelihood(Likelihood):
    """Read one raw number per pixel, shape ``(*batch, 1, *shape)``, as the log-odds of 1.

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)``.
        levels: Number of levels; it must be 2.

    Raises:
        ValueError: If ``levels`` is not 2. Grey values are not probabilities: to score them as such is no likelihood.

    Example:
        >>> BernoulliLikelihood((28, 28), 2)(torch.zeros(5, 1, 28, 28)).event_shape
        torch.Size([28, 28])
    """

    def __init__(self, shape: Iterable[int], levels: int = 2) -> None:
        if levels != 2:
            raise ValueError(
                f"BernoulliLikelihood got levels={levels}: it needs data of 2 levels. Binarise the data "
                '(binarization="dynamic" or "static"), or use CategoricalLikelihood or DiscretizedLogisticLikelihood.'
            )
        super().__init__(shape, levels, parameters=1)

    def pixels(self, raw: Tensor) -> Distribution:
        """Return coin flips of ``batch_shape`` ``(*batch, *shape)``."""
        return Bernoulli(logits=raw.squeeze(self.parameter_dim))
