# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of modules that read the raw output of a network as the parameters of a distribution."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.nn.raised import raised
from pyro_dgm.nn.shape import positive_shape


class Head(nn.Module, ABC):
    """Map raw numbers ``(*batch, *in_shape)`` to a distribution with that ``batch_shape``.

    To write a head: call ``super().__init__(in_shape)`` and implement :meth:`distribution`. Any raw numbers must give
    valid parameters, so that an untrained network is a model too.

    Args:
        in_shape: Shape of the raw numbers of one datum; the network in front is built with it as its ``out_shape``.

    Raises:
        ValueError: If a size is not a positive integer.
    """

    def __init__(self, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.in_shape = positive_shape(self, "in_shape", in_shape)

    @abstractmethod
    def distribution(self, raw: Tensor) -> Distribution:
        """Return the distribution with raw numbers of shape ``(*batch, *in_shape)``, of at least float32."""

    def forward(self, raw: Tensor) -> Distribution:
        """Read raw numbers as a distribution.

        Half-precision numbers, as a network under automatic mixed precision gives, are raised to float32 first:
        log-densities are sums over thousands of dimensions.

        Args:
            raw: Floating point tensor of shape ``(*batch, *in_shape)``.

        Returns:
            A Pyro distribution with that ``batch_shape``, and one datum as its ``event_shape``.

        Raises:
            ValueError: If the last dimensions of raw are not ``in_shape``.
        """
        batch = raw.shape[: max(raw.dim() - len(self.in_shape), 0)]
        if raw.shape != batch + self.in_shape:
            raise ValueError(
                f"{type(self).__name__} got raw parameters of shape {tuple(raw.shape)}: the last "
                f"{len(self.in_shape)} sizes must be {self.in_shape}. Build the network in front with "
                "out_shape=head.in_shape."
            )
        return self.distribution(raised(raw))
