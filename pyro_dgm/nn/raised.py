# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Raise half-precision numbers to single precision, and leave all others as they are."""

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def raised(x: Tensor) -> Tensor:
    """Give float32 for float16 and bfloat16, and the very tensor for every other type of number.

    It stands wherever the output of a network becomes part of a probability: networks get along with 8 bits, sums over
    thousands of pixels do not.

    >>> raised(torch.zeros(2, dtype=torch.bfloat16)).dtype, raised(torch.zeros(2, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in HALF else x
