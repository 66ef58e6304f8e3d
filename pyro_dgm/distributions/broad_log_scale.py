# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How likelihoods turn a raw number into the logarithm of a scale that is neither too small nor stuck."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

#: Log-scale at raw = 0: of all logistics centred at 0, that of scale 1/e scores uniform data about best.
START = -1.0


def broad_log_scale(raw: Float[Tensor, "*batch"], levels: int) -> Float[Tensor, "*batch"]:
    r"""Map raw numbers to log-scales above a floor, without cutting the gradient off there.

    .. math:: \log s = f + \mathrm{softplus}(r + c), \quad f = -\log(L - 1) - 2

    At the floor f, the scale is 1/e^2 of half a bin and a centred logistic puts 99.9 % of its mass in one level: still
    smaller scales would change nothing but the size of the gradients. The shift c makes r = 0 the log-scale -1. The
    source clamps at -7, for 256 levels, below which nothing is learned any more.

    Args:
        raw: Any numbers.
        levels: Number L of levels.

    Returns:
        Log-scales above f, in the units of a grid of L levels on [-1, 1].

    Source: Salimans et al. (ICLR 2017), arXiv:1701.05517 (the clamp is in their code).
    """
    floor = -math.log(levels - 1) - 2
    return floor + softplus(raw + math.log(math.expm1(START - floor)))
