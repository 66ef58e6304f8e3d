# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Turning grey pixels into black or white ones at random, with exactly the probability that the grey stands for."""

import math

import torch
from torch import Tensor

from pyro_dgm.data.noise import stream, uniform_bytes


class Binarizer:
    r"""Draw bits from grey levels with a generator of its own, on the device of the data.

    .. math:: P(b = 1) = x / (G - 1), \qquad b = [r < x], \quad r \sim U\{0, \dots, G - 2\}

    for G grey levels. The comparison is one of integers, so x = 0 is always black, x = G - 1 always white, and nothing
    is rounded on the way. On the CPU r is exactly uniform; on other devices ``torch.randint`` is used, whose modulo
    bias is below 2^-24. The draws of the CPU and of a GPU differ.

    Args:
        grey_levels: G, 2 to 256.
        device: Where the data will be.
        seed: Non-negative integers; the same ones give the same bits.
    """

    def __init__(self, *, grey_levels: int, device: torch.device, seed: tuple[int, ...]) -> None:
        if not 2 <= grey_levels <= 256:
            raise ValueError(f"Binarizer(grey_levels={grey_levels}): 2 to 256 grey levels can be binarised.")
        self.grey_levels = grey_levels
        self._bits = stream(*seed)
        self._generator: torch.Generator | None = None
        if device.type != "cpu":
            self._generator = torch.Generator(device).manual_seed(int(self._bits.random_raw()) >> 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Binarise x of shape ``(*any)``, dtype uint8; the result has the same shape and dtype, values 0 and 1."""
        return (self._uniform(x.shape, x.device) < x).view(torch.uint8)

    def skip(self, shape: tuple[int, ...], device: torch.device) -> None:
        """Move on as if data of this shape had been binarised."""
        self._uniform(shape, device)

    def _uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        below = self.grey_levels - 1
        if self._generator is None:
            return uniform_bytes(self._bits, math.prod(shape), below=below).view(shape)
        return torch.randint(0, below, shape, dtype=torch.uint8, device=device, generator=self._generator)


def binarize(x: Tensor, *, grey_levels: int, seed: int) -> Tensor:
    """Binarise grey levels once: the same seed gives the same bits, whatever device or version runs it.

    Args:
        x: Integers 0..grey_levels-1, shape ``(*any)``; the bits are drawn on the CPU.
        grey_levels: Number of grey levels, 2 to 256; P(1) = x / (grey_levels - 1).
        seed: Non-negative integer.

    Returns:
        0 and 1, uint8, same shape and device as x.

    >>> binarize(torch.tensor([0, 0, 255, 255]), grey_levels=256, seed=0)
    tensor([0, 0, 1, 1], dtype=torch.uint8)
    """
    draw = Binarizer(grey_levels=grey_levels, device=torch.device("cpu"), seed=(seed,))
    return draw(x.to("cpu", torch.uint8)).to(x.device)
