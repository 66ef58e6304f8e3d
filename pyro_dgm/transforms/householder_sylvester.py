# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sylvester flow whose frames are products of Householder reflections."""

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.flow_parameters import ContextNet
from pyro_dgm.transforms.reflections import reflect, reflect_back, reflections
from pyro_dgm.transforms.sylvester import Frame, Sylvester


class HouseholderSylvester(Sylvester):
    r"""Bend space along all directions of a turned frame: :math:`y = x + Q R \tanh(\tilde R Q^T x + b)` (H-SNF).

    :math:`Q = H_1 \cdots H_L`, a product of L reflections for each map, is never multiplied out, see
    :func:`reflections`. R and :math:`\tilde R` are (D, D).

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        depth: Number K of maps.
        reflections: Number L of reflections in each map; 8 is what the published tables have. More than D add nothing.
        context_net: Makes the network that gives all K (D^2 + (L + 2) D) parameters.

    Raises:
        ValueError: If a size is not positive.
        ConvergenceError: In the inverse, see :func:`solve_triangular_tanh`.

    Source: van den Berg, Hasenclever, Tomczak & Welling (UAI 2018), arXiv:1803.05649, section 3, Householder Sylvester
    flows.

    Example:
        >>> flow = HouseholderSylvester(3, depth=4, reflections=2)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        depth: int = 1,
        reflections: int = 8,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        (dim,), (depth,) = positive_shape(self, "dim", (dim,)), positive_shape(self, "depth", (depth,))
        (count,) = positive_shape(self, "reflections", (reflections,))
        super().__init__(
            dim,
            width=dim,
            upper=[True] * depth,
            initial={"vectors": torch.randn(depth, count, dim)},
            context_dim=context_dim,
            context_net=context_net,
        )

    def frames(self, *values: Tensor) -> Frame:
        """Give the two thin matrices of each product."""
        return reflections(*values)

    def into_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q^T x for every row."""
        u, w = frame
        return reflect_back(rows, (u, w))

    def out_of_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q t for every row."""
        u, w = frame
        return reflect(rows, (u, w))
