# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A number from the literature, with where it was read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A number to compare with. It counts as published only if somebody looked it up in its source.

    Args:
        value: The number, in the unit of its measure.
        source: Where it stands, or where it is said to stand.
        error: Its error, as the source prints it.
        verified: Whether it was read there; a number from memory says so in every table.

    >>> print(Published(86.55, "arXiv:1810.01367, table 3", error=0.06))
    86.55 +- 0.06
    """

    value: float
    source: str
    error: float | None = None
    verified: bool = True

    def __str__(self) -> str:
        """As tables print it."""
        error = "" if self.error is None else f" +- {self.error:.2f}"
        return f"{self.value:.2f}{error}{'' if self.verified else ' (recalled, unverified)'}"
