# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Vectors laid out as the rows of one matrix for each datum, so that a linear map is a plain matrix product."""

from collections.abc import Callable

from torch import Tensor


def on_rows(function: Callable[[Tensor], Tensor], x: Tensor, matrix: Tensor) -> Tensor:
    """Apply a function of rows to vectors, of which many may share one matrix.

    Args:
        function: Maps rows ``(*batch, M, D)`` to rows of the same shape.
        x: Vectors of shape ``(*more, *batch, D)``; M is the product of ``more``.
        matrix: Shape ``(*batch, D, D)``. Only its shape is used: where to find ``batch``.

    Returns:
        What the function gives, laid out as x.
    """
    batch = matrix.dim() - 2
    if batch == 0:
        return function(x.reshape(-1, x.shape[-1])).reshape(x.shape)
    more = x.dim() - 1 - batch
    rows = x.unsqueeze(0) if more == 0 else x.flatten(0, more - 1)  # (M, *batch, D)
    return function(rows.movedim(0, -2)).movedim(-2, 0).reshape(x.shape)
