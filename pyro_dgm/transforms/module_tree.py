# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""All modules inside a module, quickly."""

from collections.abc import Iterator

from torch import nn


def module_tree(module: nn.Module) -> Iterator[nn.Module]:
    """Give a module and all in it, always in the same order.

    Those in several places come several times, which is quicker than to look for them.
    """
    yield module
    stack = list(module._modules.values())
    while stack:
        if (child := stack.pop()) is not None:
            yield child
            stack.extend(child._modules.values())
