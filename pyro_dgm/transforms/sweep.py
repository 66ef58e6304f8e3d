# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run a network whose outputs are its next inputs, computing every unit once."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

BLOCK = 16  # as fast as any from 4 to 64, at 64 and at 784 dimensions


def sweep(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    ends: Sequence[Sequence[int]],
    activate: Callable[[int, int, Tensor], Tensor],
    step: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Run a network whose last level feeds its first, step by step.

    The rows of a level are sorted by the step in which they become known. In a step they do so level after level: those
    of level 1 from all rows of level 0 of earlier steps, those of level 2 from all rows of level 1 that are known, and
    so on. Steps go in blocks: what a block needs from before it is one matrix product for each level, what arises
    within it is added column by column.

    Args:
        weights: From each level to the next, shape (rows of the next, rows of this). Those that go back in time have
            no effect.
        biases: Of each level but the first, shape (rows, N).
        ends: For each level, and t = 0 ... T, how many of its rows are known after t steps.
        activate: Takes a level, counted from 0 for the first hidden one, the first of some rows, and their sums, and
            gives their values.
        step: Takes a step t and the sums of its rows of the last level; gives those of its rows of the first level.

    Returns:
        The first level, shape (rows, N).
    """
    known = [biases[0].new_empty(0, biases[0].shape[1])] * len(weights)
    steps = len(ends[-1]) - 1
    for start in range(0, steps, BLOCK):
        known = _block(weights, biases, ends, activate, step, known, range(start, min(start + BLOCK, steps)))
    return known[0]


def _block(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    ends: Sequence[Sequence[int]],
    activate: Callable[[int, int, Tensor], Tensor],
    step: Callable[[int, Tensor], Tensor],
    known: list[Tensor],
    block: range,
) -> list[Tensor]:
    """Add the rows of a block of steps to those known."""
    s, e = block.start, block.stop
    sums, columns = [], []
    for weight, bias, (here, there), values in zip(weights, biases, pairwise(ends), known, strict=True):
        rows = weight[there[s] : there[e]]
        sums.append(torch.addmm(bias[there[s] : there[e]], rows[:, : here[s]], values))
        columns.append(rows[:, here[s] : here[e]].split([m - n for n, m in pairwise(here[s : e + 1])], 1))
    chunks = [[values] for values in known]
    for t in block:
        for level, end in enumerate(ends[1:]):
            size = end[t + 1] - end[t]
            if not size:
                continue
            rows = sums[level].narrow(0, end[t] - end[s], size)
            if level + 1 < len(weights):
                to, new = level + 1, activate(level, end[t], rows)
            else:
                to, new = 0, step(t, rows)
            chunks[to].append(new)
            sums[to] = torch.addmm(sums[to], columns[to][t - s], new)
    return [torch.cat(parts) for parts in chunks]
