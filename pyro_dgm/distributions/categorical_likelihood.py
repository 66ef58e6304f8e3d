# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A likelihood that gives every level of every pixel its own probability."""

from collections.abc import Iterable

from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.categorical_levels import CategoricalLevels
from pyro_dgm.distributions.likelihood import Likelihood


class CategoricalLikelihood(Likelihood):
    """Read L raw numbers per pixel, shape ``(*batch, L, *shape)``, as the logits of its levels.

    It can take any form, at the price of L outputs per pixel and of not knowing that level 7 is next to level 8. Raw
    numbers of zero give the uniform distribution.

    Args:
        shape: Shape of one datum, e.g. ``(28, 20)``.
        levels: Number L of levels, e.g. 256.

    Raises:
        ValueError: If ``shape`` or ``levels`` is out of range.

    Example:
        >>> CategoricalLikelihood((28, 20), 256)(torch.zeros(5, 256, 28, 20)).event_shape
        torch.Size([28, 20])
    """

    def __init__(self, shape: Iterable[int], levels: int) -> None:
        super().__init__(shape, levels, parameters=levels)

    def pixels(self, raw: Tensor) -> Distribution:
        """Return tables of probabilities of ``batch_shape`` ``(*batch, *shape)``."""
        logits = raw.movedim(self.parameter_dim, -1)  # a view
        # Torch cannot validate vectors of an empty batch, and there is nothing to validate.
        return CategoricalLevels(logits=logits, validate_args=None if logits.numel() else False)
