# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of likelihoods: modules that turn P raw numbers for each pixel into a distribution over the data."""

from abc import abstractmethod
from collections.abc import Iterable

from torch import Tensor
from torch.distributions import Distribution

from pyro_dgm.distributions.head import Head
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.nn.shape import positive_shape


class Likelihood(Head):
    """Map raw numbers ``(*batch, P, *shape)`` to p(x | raw) over data x of ``shape`` with independent pixels.

    To write a likelihood: take ``(shape, levels, **options)``, call ``super().__init__(shape, levels,
    parameters=P)``, and implement :meth:`pixels`. Its ``mean`` must work: it is drawn as a picture.

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)``.
        levels: Number L of levels; data are integers 0..L-1.
        parameters: Number P of raw numbers for every pixel.

    Raises:
        ValueError: If ``shape`` or ``levels`` is out of range.
    """

    def __init__(self, shape: Iterable[int], levels: int, *, parameters: int) -> None:
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(
                f"{type(self).__name__} got levels={levels}: it must be an integer of at least 2, "
                "the number of values that a pixel can take."
            )
        shape = positive_shape(self, "shape", shape)
        super().__init__((parameters, *shape))
        self.shape = shape
        self.levels = levels

    @abstractmethod
    def pixels(self, raw: Tensor) -> Distribution:
        """Return the distribution of single pixels, with ``batch_shape`` ``(*batch, *shape)``."""

    def distribution(self, raw: Tensor) -> Distribution:
        """Return the distribution of whole data, with ``event_shape`` equal to ``shape``."""
        return Independent(self.pixels(raw), len(self.shape))

    @property
    def parameter_dim(self) -> int:
        """Dimension of the raw numbers that counts the P parameters, from the right: ``(*batch, P, *shape)``."""
        return -1 - len(self.shape)
