# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A fair subset of a test set is drawn at random: the first images of an ordered set are not typical of it."""

import torch
from torch import Tensor


def random_subset(total: int, num_data: int | None, *, seed: int = 0) -> Tensor:
    """Draw indices of ``num_data`` out of ``total`` data without replacement.

    Test sets are ordered: the first 2000 images of static MNIST are far easier than the others, so that "the first N"
    is a biased estimate. The draw depends on the seed alone, never on the global random stream.

    Args:
        total: How many data there are.
        num_data: How many are wanted; ``None`` is all of them.
        seed: Seed of the draw.

    Returns:
        Sorted indices, an int64 tensor of shape ``(num_data,)`` on the CPU.

    Raises:
        ValueError: If there are no data, or ``num_data`` is not between 1 and ``total``.

    >>> random_subset(10, 3)
    tensor([1, 4, 7])
    """
    if total < 1:
        raise ValueError("There are no data to evaluate on: x is empty (its first size is 0).")
    if num_data is None:
        return torch.arange(total)
    if not 1 <= num_data <= total:
        raise ValueError(
            f"num_data={num_data} data were asked for and x has {total}: "
            f"give a number from 1 to {total}, or None for all of them."
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:num_data].sort().values
