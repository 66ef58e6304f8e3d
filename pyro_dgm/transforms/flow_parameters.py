# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The parameters of a flow: its own, or the output of a network that sees a context."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pyro_dgm.nn.mixed_precision import mixed_precision
from pyro_dgm.transforms.start_small import last_layer

ContextNet = Callable[[int, int], nn.Module]
"""Makes the network from the size of a context and the number of parameters; `nn.Linear` is one."""


class FlowParameters(nn.Module):
    """Hold named parameters, or compute them from a context with one network for all.

    Amortised parameters start near their initial values: those are the last bias, where the network has one.

    Args:
        initial: Initial value of each parameter, by name.
        context_dim: Size of a context; None for parameters that are their own.
        context_net: Makes the network from ``context_dim`` and the number of parameters.
    """

    def __init__(
        self, initial: Mapping[str, Tensor], context_dim: int | None, context_net: ContextNet = nn.Linear
    ) -> None:
        super().__init__()
        self.shapes = [value.shape for value in initial.values()]
        self.sizes = [value.numel() for value in initial.values()]
        self.names = list(initial)
        if context_dim is None:
            for name, value in initial.items():
                self.register_parameter(name, nn.Parameter(value.clone()))
            return
        self.net = context_net(context_dim, sum(self.sizes))
        linear = last_layer(self.net, nn.Linear)
        if linear is not None and linear.bias is not None and linear.out_features == sum(self.sizes):
            with torch.no_grad():
                linear.bias.copy_(torch.cat([value.flatten() for value in initial.values()]))

    def forward(self, context: Tensor | None) -> tuple[Tensor, ...]:
        """Give each parameter: its own of its shape, or one for each context, shape ``(*batch, *shape)``."""
        if context is None:
            return tuple(getattr(self, name) for name in self.names)
        raw = self._computed(context).split(self.sizes, dim=-1)
        return tuple(part.reshape(*context.shape[:-1], *shape) for part, shape in zip(raw, self.shapes, strict=True))

    @mixed_precision
    def _computed(self, context: Tensor) -> Tensor:
        return self.net(context)
