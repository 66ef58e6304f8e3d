# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bits per dimension make log-likelihoods of images of different sizes comparable."""

import math

from jaxtyping import Float
from torch import Tensor


def bits_per_dim(log_prob: Float[Tensor, "*batch"], event_shape: tuple[int, ...]) -> Float[Tensor, "*batch"]:
    r"""Turn nats per datum into bits per dimension.

    .. math:: \mathrm{bpd} = -\log p(x) \,/\, (D \ln 2)

    Args:
        log_prob: log p(x) of *integer* data in nats, shape ``(*batch)``. Give the log-density of dequantised data and
            the result is an upper bound, because that density bounds log p(x) from below.
        event_shape: Shape of one datum, e.g. ``(3, 32, 32)``; D is the product of its sizes.

    Returns:
        Bits per dimension, shape ``(*batch)``. Lower is better; a uniform distribution over bytes has 8.

    Raises:
        ValueError: If ``event_shape`` has a size below 1.

    Source: Theis, van den Oord & Bethge (ICLR 2016), arXiv:1511.01844, section 3.1.

    >>> import torch
    >>> bits_per_dim(torch.tensor(-12 * math.log(256)), event_shape=(3, 2, 2))
    tensor(8.)
    """
    if any(size < 1 for size in event_shape):
        raise ValueError(f"bits_per_dim got event_shape={event_shape}: every size of one datum must be at least 1.")
    return -log_prob / (math.prod(event_shape) * math.log(2))
