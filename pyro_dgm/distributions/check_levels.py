# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Refuse data that are no levels, where Pyro's validation is on, and say which levels there are."""

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor

from pyro_dgm.transforms.one_pass import under_functorch


def check_levels(owner: object, x: Tensor, levels: int) -> None:
    """Refuse x if one of its elements is not an integer from 0 to levels - 1. It reads numbers, hence the validation.

    Args:
        owner: Who was given x; its class is named in messages.
        x: Integers, or floating point numbers that hold integers.
        levels: Number of levels.

    Raises:
        ValueError: With validation on, if there is another number among them.
    """
    if not (is_validation_enabled() and x.numel()) or x.is_meta or under_functorch():
        return
    low, high = torch.stack(x.aminmax()).tolist()
    whole = not x.is_floating_point() or bool((x == x.floor()).all())
    if not (low >= 0 and high < levels and whole):
        raise ValueError(
            f"{type(owner).__name__} got x from {low} to {high}{'' if whole else ', with fractions'}: it has {levels} "
            f"levels: 0 ... {levels - 1}, all integers. If the data have more, set levels= to their number."
        )
