# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Affine coupling (RealNVP): some elements scale and shift the others."""

from collections.abc import Sequence

from pyro_dgm.nn.mlp import MLP
from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.coupling import Coupling, CouplingNet


class AffineCoupling(Coupling):
    r"""Scale and shift the elements outside a mask by what the elements inside it say.

    .. math:: y_A = x_A, \qquad y_i = x_i\, e^{s_i(x_A)} + t_i(x_A) \text{ for } i \notin A,
              \qquad \log|\det J| = \sum_{i \notin A} s_i(x_A)

    Both directions are one pass. Starts as the identity.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which the network sees beside the elements; None for none.
        mask: For each dimension, whether it passes through unchanged. None: the first half does.
        net: Makes the network, called as ``net((kept + H,), (D - kept, 2))`` with the number of elements that are
            kept; `functools.partial` sets its options.
        bound: Bound of the log-scales s, smooth and both ways; 3 lets an element shrink or grow by a factor of 20.

    Raises:
        ValueError: If a size or the bound is not positive, or the mask has the wrong length, keeps everything, or
            keeps nothing where there is no context either.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.2, with the mask of section 3.4 as lists of indices.

    Example:
        >>> flow = AffineCoupling(3, mask=[True, True, False], context_dim=2)
        >>> y, logdet = flow.condition(torch.zeros(5, 2)).forward_and_logdet(torch.ones(5, 3))
        >>> y.shape, logdet.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        mask: Sequence[bool] | None = None,
        net: CouplingNet = MLP,
        bound: int | float = 3.0,
    ) -> None:
        super().__init__(dim, ElementwiseAffine(float(bound)), context_dim=context_dim, mask=mask, net=net)
