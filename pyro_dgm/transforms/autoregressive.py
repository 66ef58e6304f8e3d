# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of autoregressive flows: every element is mapped with parameters that the elements before it give."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_dgm.nn.apply_function import apply_function
from pyro_dgm.nn.made import MADE
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.one_pass import under_functorch
from pyro_dgm.transforms.sequential import Map, Solve, one_by_one


class Autoregressive(FlowTransform):
    r"""Map every element by an increasing function whose raw numbers a MADE computes from the elements before it.

    With E the elementwise map and v what the network sees,

    - ``parallel="forward"`` sees x: :math:`y_i = E(x_i; r_i(x_{<i}))`, forward in one pass, the inverse one by one;
    - ``parallel="inverse"`` sees y: :math:`y_i = E(x_i; r_i(y_{<i}))`, the inverse in one pass, forward one by one.

    Args:
        dim: Number of dimensions D.
        elementwise: The map of one element.
        context_dim: Size H of a context, which reaches every layer of the network; None for none.
        hidden: Widths of the network's hidden layers.
        order: The dimensions from first to last; None for 0 to D - 1.
        activation: Nonlinearity of the network; it acts on each number alone.
        parallel: The direction that is one pass.

    Raises:
        ValueError: If a size is not positive, the order is no permutation, or the activation has parameters.
    """

    autoregressive = True

    def __init__(
        self,
        dim: int,
        elementwise: Elementwise,
        *,
        context_dim: int | None = None,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.ReLU,
        parallel: Literal["forward", "inverse"],
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        self.elementwise = elementwise
        self.parallel = parallel
        self.net = MADE(
            dim, elementwise.size, hidden=hidden, order=order, context_dim=context_dim, activation=activation
        )

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the biases of every layer of the network from a context; with None, give its own."""
        return self.net.biases(context)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        there, back = self.elementwise.forward_and_logdet, self.elementwise.inverse_and_logdet
        if self.parallel == "forward":
            return self._at_once(there, x, parameters)
        return self._in_sequence(back, there, x, parameters)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        there, back = self.elementwise.forward_and_logdet, self.elementwise.inverse_and_logdet
        if self.parallel == "inverse":
            return self._at_once(back, y, parameters)
        return self._in_sequence(there, back, y, parameters)

    def _at_once(self, function: Map, v: Tensor, biases: Parameters) -> tuple[Tensor, Tensor]:
        w, logdet = function(v, self.net(v, biases))
        return w, logdet.sum(-1)

    def _in_sequence(self, function: Map, inverse: Map, w: Tensor, biases: Parameters) -> tuple[Tensor, Tensor]:
        weights = tuple(layer.weight for layer in self.net.linear)
        if under_functorch() or torch.compiler.is_compiling():  # they differentiate operations, and know no theorem
            return one_by_one(self.net, inverse, w, biases, weights)
        return apply_function(Solve, self.net, function, inverse, w, *biases, *weights)
