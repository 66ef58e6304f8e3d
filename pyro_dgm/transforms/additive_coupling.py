# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Additive coupling (NICE): some elements shift the others; volume is preserved."""

from collections.abc import Sequence

from pyro_dgm.nn.mlp import MLP
from pyro_dgm.transforms.additive import ElementwiseShift
from pyro_dgm.transforms.coupling import Coupling, CouplingNet


class AdditiveCoupling(Coupling):
    r"""Shift the elements outside a mask by what the elements inside it say.

    .. math:: y_A = x_A, \qquad y_i = x_i + t_i(x_A) \text{ for } i \notin A, \qquad \log|\det J| = 0

    Both directions are one pass. Starts as the identity.

    Args:
        dim: Number of dimensions D.
        context_dim: Size H of a context, which the network sees beside the elements; None for none.
        mask: For each dimension, whether it passes through unchanged. None: the first half does.
        net: Makes the network, called as ``net((kept + H,), (D - kept, 1))`` with the number of elements that are
            kept; `functools.partial` sets its options.

    Raises:
        ValueError: If a size is not positive, or the mask has the wrong length, keeps everything, or keeps nothing
            where there is no context either.

    Source: Dinh et al. (ICLR workshop 2015), arXiv:1410.8516, section 3.2.

    Example:
        >>> flow = AdditiveCoupling(3, mask=[True, True, False])
        >>> flow.forward_and_logdet(torch.ones(2, 3))
        (tensor([[1., 1., 1.],
                 [1., 1., 1.]], grad_fn=...), tensor([0., 0.]))
    """

    def __init__(
        self,
        dim: int,
        *,
        context_dim: int | None = None,
        mask: Sequence[bool] | None = None,
        net: CouplingNet = MLP,
    ) -> None:
        super().__init__(dim, ElementwiseShift(), context_dim=context_dim, mask=mask, net=net)
