# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A reduction sums whatever a site scores down to one number per particle and datum."""

from torch import Tensor

from pyro_dgm.nn.raised import raised


class Reduction:
    """Sums a site's log-probability over every dimension but the particles and the plates all coupled sites share.

    Sums are of float32 at least: half precision, as a network may give it under automatic mixed precision in a program
    that scores its output as it is, has 8 bits, and data have thousands of pixels.

    Args:
        nesting: How many dimensions the plates take.
        units: Negative dimensions of the plates that are kept.
        particles: K.
    """

    def __init__(self, nesting: int, units: list[int], particles: int) -> None:
        self.rank = nesting + 1
        kept = {0, *(self.rank + dim for dim in units)}
        self.summed = [dim for dim in range(self.rank) if dim not in kept]
        self.particles = particles

    def __call__(self, log_prob: Tensor, *, event_dim: int = 0) -> Tensor:
        """Turn ``(K, *plates, *event)``, or fewer plates, into ``(K, B, *event)``.

        Args:
            log_prob: What the site scores.
            event_dim: How many dimensions at the end are of one datum; a log-probability has none.

        Raises:
            ValueError: If there are more dimensions than the plates account for.
        """
        shape = log_prob.shape[: log_prob.dim() - event_dim]
        if len(shape) > self.rank:
            raise ValueError(
                f"A site's log-probability has shape {tuple(shape)}, but its plates account for "
                f"{self.rank - 1} dimensions beside the particles. Declare event dimensions with .to_event(), or put "
                f"the batched ones into a pyro.plate."
            )
        padded = raised(log_prob).reshape((1,) * (self.rank - len(shape)) + log_prob.shape)
        reduced = padded.sum(self.summed) if self.summed else padded
        return reduced if len(reduced) == self.particles else reduced.expand(self.particles, *reduced.shape[1:])
