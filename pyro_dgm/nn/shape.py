# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Shapes that the constructors take: tuples of positive integers, checked with a message that names the caller."""

from collections.abc import Iterable


def positive_shape(owner: object, name: str, shape: Iterable[int]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple, or say what is wrong with it.

    Args:
        owner: Object whose constructor got the shape; its class is named in the message.
        name: Name of the argument.
        shape: Sizes.

    Raises:
        ValueError: If a size is not an integer of at least 1.
    """
    sizes = tuple(shape)
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(
            f"{type(owner).__name__} got {name}={sizes}: every size must be a positive integer, as in (1, 28, 28)."
        )
    return sizes
