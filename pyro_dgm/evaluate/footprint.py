# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How many numbers a program holds at once for one datum decides how many particles fit into memory."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Sizes(TorchDispatchMode):
    """Write down the size of the largest tensor that each operation makes; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.numel: list[int] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if not any(returned.alias_info for returned in func._schema.returns):
            self.numel.append(max((leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), default=0))
        return out


def footprint(program: Callable[[Tensor], object], x: Tensor) -> int:
    """Measure the largest tensor that a program makes per datum.

    The program runs on one datum and on two. What grows between them is per-datum (activations, logits, samples); what
    does not is shared (weights, masked weights) and takes no part.

    Args:
        program: Anything that is called with a batch of data.
        x: Data of shape ``(N, *event)``, N at least 1; only the first is used.

    Returns:
        Number of elements of the largest tensor per datum, at least the size of the datum itself.

    >>> import torch
    >>> footprint(lambda x: (x @ torch.ones(5, 1000)).exp().sum(-1), torch.ones(3, 5))
    1000
    """
    runs = []
    for size in (1, 2):
        with _Sizes() as sizes:
            program(x[:1].expand(size, *x.shape[1:]))
        runs.append(sizes.numel)
    one, two = runs
    if len(one) == len(two):
        growth = max((b - a for a, b in zip(one, two, strict=True)), default=0)
    else:  # the program branches on its input (e.g. an adaptive solver), so all that is new counts as per-datum
        growth = max(Counter(two) - Counter(one), default=0) // 2
    return max(growth, x[0].numel(), 1)
