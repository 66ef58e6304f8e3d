# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of weights: noise of the last steps averaged out, at the price of a second copy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    r"""Average a module's parameters over the steps of training.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\, \theta_t, \quad d_t = \min(d, \tfrac{1 + t}{10 + t})

    The ramp makes the average forget the untrained weights within the first steps. Buffers are not averaged: the
    current ones are used. Nothing is deep-copied, so modules with cached tensors are fine.

    Args:
        module: Whose parameters to average, all of which exist already.
        decay: d, below 1; 0.999 averages over about a thousand steps.

    Raises:
        ValueError: If ``decay`` is not between 0 and 1, or there are no parameters.

    Source: Polyak & Juditsky (1992) for averaging; the ramp is that of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema={decay}: the decay must lie between 0 and 1, e.g. 0.999.")
        self.module, self.decay, self.updates = module, decay, 0
        named = [(n, p) for n, p in module.named_parameters() if p.is_floating_point() or p.is_complex()]
        self.names, self.live = [name for name, _ in named], [parameter.detach() for _, parameter in named]
        self.averages = [parameter.clone() for parameter in self.live]
        if not self.averages:
            raise ValueError(f"{type(module).__name__} has no parameters to average: leave out ema.")

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of the step just done into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.live, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the place of the parameters for a while; they come back to the bit."""
        kept = [parameter.clone() for parameter in self.live]
        self.apply()
        try:
            yield
        finally:
            torch._foreach_copy_(self.live, kept)

    @torch.no_grad()
    def apply(self) -> None:
        """Overwrite the parameters with the average."""
        torch._foreach_copy_(self.live, self.averages)

    def weights(self) -> dict[str, Tensor]:
        """Give the module's state dict with averaged parameters."""
        return {**self.module.state_dict(), **dict(zip(self.names, self.averages, strict=True))}

    def load(self, weights: dict[str, Tensor], *, updates: int) -> None:
        """Continue from what `weights` gave after so many updates."""
        torch._foreach_copy_(self.averages, [weights[name].to(self.averages[0].device) for name in self.names])
        self.updates = updates
