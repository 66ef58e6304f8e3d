# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sylvester flow whose frames are the axes, in their order and in reverse by turns."""

from torch import nn

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.flow_parameters import ContextNet
from pyro_dgm.transforms.sylvester import Sylvester


class TriangularSylvester(Sylvester):
    r"""Bend space along its axes: :math:`y = x + Q R \tanh(\tilde R Q^T x + b)`, Q a permutation (T-SNF).

    Q is the identity in the first, third, fifth ... map, and reverses the axes in the others. Nothing is reversed here:
    with that Q, :math:`Q R Q^T` is lower triangular, and so the maps have upper and lower triangles by turns. Their
    parameters are those of the paper, in the others with rows and columns in reverse.

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        depth: Number K of maps; one alone sees the axes in one order only.
        context_net: Makes the network that gives all K (D^2 + 2 D) parameters.

    Raises:
        ValueError: If a size is not positive.
        ConvergenceError: In the inverse, see :func:`solve_triangular_tanh`.

    Source: van den Berg, Hasenclever, Tomczak & Welling (UAI 2018), arXiv:1803.05649, section 3, triangular Sylvester
    flows.

    Example:
        >>> flow = TriangularSylvester(3, depth=4)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self, dim: int, *, context_dim: int | None = None, depth: int = 1, context_net: ContextNet = nn.Linear
    ) -> None:
        (depth,) = positive_shape(self, "depth", (depth,))
        upper = [k % 2 == 0 for k in range(depth)]
        super().__init__(dim, width=dim, upper=upper, initial={}, context_dim=context_dim, context_net=context_net)
