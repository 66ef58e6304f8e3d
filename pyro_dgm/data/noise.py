# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Seeded streams of random bytes and permutations that are the same on every machine and in every version.

Only raw words of numpy's SFC64 are used: numpy promises that the stream of a bit generator never changes, and promises
no such thing of what ``numpy.random.Generator`` or torch make of it. SFC64 is also more than ten times as fast as
`torch.randint` on a CPU, which is what lets binarisation cost next to nothing. No global generator is ever read or
written.
"""

import math

import numpy as np
import torch
from torch import Tensor


def stream(*seed: int) -> np.random.SFC64:
    """Make a bit generator from a few non-negative integers; other integers, or more of them, give other streams."""
    if any(s < 0 for s in seed):
        raise ValueError(f"A seed of {seed} was given: seeds must be non-negative integers.")
    return np.random.SFC64(np.random.SeedSequence((len(seed), *seed)))


def permutation(size: int, *seed: int) -> Tensor:
    """Draw a uniformly random order of ``range(size)``, shape ``(size,)``, dtype int64, on the CPU.

    It sorts random 64-bit keys, so that it depends on the raw stream alone.

    >>> permutation(5, 0).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    return torch.from_numpy(np.argsort(stream(*seed).random_raw(size), kind="stable"))


def uniform_bytes(bits: np.random.SFC64, count: int, *, below: int) -> Tensor:
    """Draw ``count`` integers, exactly uniform over 0..below-1 for 1 <= below <= 256, shape ``(count,)``, uint8.

    Bytes that would favour the small values (the last ``256 % below`` of 256) are thrown away: for pixels with 256
    grey levels, below = 255, this deletes every byte 255 from the stream, at the speed of ``memchr``.

    >>> int(uniform_bytes(stream(0), 1000, below=16).max())
    15
    """
    keep = 256 - 256 % below
    found = bytearray()
    while len(found) < count:
        missing = (count - len(found)) * 256 // keep + 4 * math.isqrt(count) + 8
        raw = bytearray(bits.random_raw(missing // 8 + 1).astype("<u8", copy=False).data)
        if keep == below:
            drawn = raw.replace(b"\xff", b"") if below == 255 else raw.translate(None, bytes(range(keep, 256)))
        else:
            drawn = raw.translate(bytes(i % below for i in range(256)), bytes(range(keep, 256)))
        found = found + drawn if found else drawn
    return torch.frombuffer(found, dtype=torch.uint8, count=count)
