# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows one after the other, as one flow."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters


class Compose(FlowTransform):
    r"""Apply flows in their order; log-determinants add up.

    .. math:: y = f_K(\dots f_1(x)), \qquad \log|\det J| = \sum_k \log|\det J_k|

    Learned and amortised flows may be mixed: a context goes to those that take one.

    Args:
        flows: At least one flow; each takes what the one before it gives, and all that are amortised take the same
            context.

    Raises:
        ValueError: If there is none, something else is among them, or they do not fit together.

    Example:
        >>> from pyro_dgm.transforms import Permute, Planar
        >>> flow = Compose([Planar(4, context_dim=3), Permute([3, 2, 1, 0])])
        >>> flow.condition(torch.randn(5, 3))(torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(self, flows: Sequence[FlowTransform]) -> None:
        flows = list(flows)
        strange = [type(flow).__name__ for flow in flows if not isinstance(flow, FlowTransform)]
        if strange or not flows:
            raise ValueError(
                f"{type(self).__name__} got {', '.join(strange) or 'nothing'}: it needs a list of flows of this "
                f"package. Transforms of torch or Pyro stand beside them in the list that a TransformedDistribution "
                f"takes."
            )
        fit = all(flow.out_shape == after.shape for flow, after in pairwise(flows))
        contexts = {flow.context_dim for flow in flows} - {None}
        if not fit or len(contexts) > 1:
            raise ValueError(
                f"{type(self).__name__} got flows {flows}: each must take the shape that the one before it gives, "
                f"and all one context_dim or none."
            )
        super().__init__(
            flows[0].shape, out_shape=flows[-1].out_shape, context_dim=contexts.pop() if contexts else None
        )
        self.flows = nn.ModuleList(flows)

    @property
    def parts(self) -> list:
        """The flows, in their order."""
        return list(self.flows)

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the parameters of every flow."""
        return tuple(flow.bind(None if flow.context_dim is None else context) for flow in self.parts)

    def _steps(self, parameters: Parameters, *, inverse: bool) -> Iterator[tuple[FlowTransform, Parameters, bool]]:
        pairs = list(zip(self.parts, parameters, strict=True))
        for flow, own in reversed(pairs) if inverse else pairs:
            yield from flow._steps(own, inverse=inverse)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.parts})"

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        logdets = []
        for flow, own in zip(self.parts, parameters, strict=True):
            x, logdet = flow._forward_and_logdet(x, own)
            logdets.append(logdet)
        return x, sum(logdets[1:], logdets[0])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        logdets = []
        for flow, own in zip(reversed(self.parts), reversed(parameters), strict=True):
            y, logdet = flow._inverse_and_logdet(y, own)
            logdets.append(logdet)
        return y, sum(logdets[1:], logdets[0])
