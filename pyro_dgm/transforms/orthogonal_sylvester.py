# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sylvester flow that bends space along a few orthogonal directions, found by iterative orthogonalisation."""

import torch
from torch import Tensor, nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.flow_parameters import ContextNet
from pyro_dgm.transforms.orthogonalize import orthogonalize
from pyro_dgm.transforms.sylvester import Frame, Sylvester


class OrthogonalSylvester(Sylvester):
    r"""Bend space along M orthonormal directions: :math:`y = x + Q R \tanh(\tilde R Q^T x + b)` (O-SNF).

    Q is what :func:`orthogonalize` makes of a free matrix (D, M): orthonormal to machine precision, on which the
    log-determinant relies. The matrix starts as a random orthonormal one; amortised, near one for every context.

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        depth: Number K of maps.
        bottleneck: Number M of directions, at most D; None for 8, or D if that is less. 8 is the default of the
            published code, whose table for MNIST has 32 at D = 64.
        context_net: Makes the network that gives all K (M^2 + (D + 2) M) parameters.

    Raises:
        ValueError: If a size is not positive, or the bottleneck above ``dim``.
        ConvergenceError: In the inverse, see :func:`solve_triangular_tanh`.

    Source: van den Berg, Hasenclever, Tomczak & Welling (UAI 2018), arXiv:1803.05649, section 3, orthogonal Sylvester
    flows.

    Example:
        >>> flow = OrthogonalSylvester(5, depth=4, bottleneck=2)
        >>> x = torch.randn(5, 5)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        depth: int = 1,
        bottleneck: int | None = None,
        context_net: ContextNet = nn.Linear,
    ) -> None:
        (dim,), (depth,) = positive_shape(self, "dim", (dim,)), positive_shape(self, "depth", (depth,))
        (width,) = positive_shape(self, "bottleneck", (min(dim, 8) if bottleneck is None else bottleneck,))
        if width > dim:
            raise ValueError(
                f"OrthogonalSylvester(dim={dim}) got bottleneck={bottleneck}: there are no more than {dim} orthogonal "
                f"directions. Take at most {dim}."
            )
        super().__init__(
            dim,
            width=width,
            upper=[True] * depth,
            initial={"directions": orthogonalize(torch.randn(depth, dim, width))},
            context_dim=context_dim,
            context_net=context_net,
        )

    def frames(self, *values: Tensor) -> Frame:
        """Give the orthonormal columns of each map."""
        (directions,) = values
        return (orthogonalize(directions),)

    def into_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q^T x for every row."""
        return rows @ frame[0]

    def out_of_frame(self, rows: Tensor, frame: Frame) -> Tensor:
        """Give Q t for every row."""
        return rows @ frame[0].mT
