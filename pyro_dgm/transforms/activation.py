# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Smooth functions of one number that know between which bounds their slope lies, for flows that are made of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Shares = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Gives p and q = 1 - p >= 0, such that the slope at z is ``p * steepest + q * least``."""


@dataclass(frozen=True)
class Activation:
    r"""A smooth function h whose slope lies between two known bounds.

    A planar flow of h is invertible while :math:`1 + c\, h'(z) > 0` for all z, and with
    :math:`h' = p\, h'_{max} + q\, h'_{min}` its determinant is the sum of positives
    :math:`p\,(1 + c\, h'_{max}) + q\,(1 + c\, h'_{min})`. This is why the bounds must be true.

    Args:
        value: h, elementwise and differentiable.
        slope: Its derivative.
        least: Lower bound of the slope; negative for a function that falls somewhere.
        steepest: Upper bound of the slope.
        precise_shares: z to p and q, by formulas that do not cancel: tanh(z)^2 is the q of tanh. None: from the slope,
            with an error of eps.

    Raises:
        ValueError: If the bounds are not finite, or not in order.

    Example:
        >>> wave = Activation(torch.sin, torch.cos, least=-1.0, steepest=1.0)
        >>> p, q = wave.shares(torch.zeros(()))
        >>> p.item(), q.item()
        (1.0, 0.0)
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    least: float
    steepest: float
    precise_shares: Shares | None = None

    def __post_init__(self) -> None:
        if not -float("inf") < self.least < self.steepest < float("inf"):
            raise ValueError(
                f"Activation got least={self.least} and steepest={self.steepest}: they bound the slope, so least must "
                f"be below steepest and both finite, e.g. least=0.0, steepest=1.0 for tanh."
            )

    def shares(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Give p and q = 1 - p, such that the slope at z is ``p * steepest + q * least``."""
        if self.precise_shares is not None:
            return self.precise_shares(z)
        p = ((self.slope(z) - self.least) / (self.steepest - self.least)).clamp(0, 1)
        return p, 1 - p


def _tanh_slope(z: Tensor) -> Tensor:
    return 1 - z.tanh().square()


def _tanh_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    q = z.tanh().square()
    return 1 - q, q


def _sigmoid_slope(z: Tensor) -> Tensor:
    return z.sigmoid() * (-z).sigmoid()


def _sigmoid_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    return _tanh_shares(z / 2)


def _softplus(z: Tensor) -> Tensor:
    return -functional.logsigmoid(-z)  # torch's softplus is z from 20 on, a jump that matters in float64


def _softplus_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.sigmoid(), (-z).sigmoid()


def _arctan_slope(z: Tensor) -> Tensor:
    return 1 / (1 + z.square())


def _arctan_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    square = z.square()
    return 1 / (1 + square), square / (1 + square)


def _elu_slope(z: Tensor) -> Tensor:
    return z.clamp_max(0).exp()


def _elu_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clamp_max(0)
    return z.exp(), -z.expm1()


def _sine_shares(z: Tensor) -> tuple[Tensor, Tensor]:
    return (z / 2).cos().square(), (z / 2).sin().square()


ACTIVATIONS = {
    "arctan": Activation(torch.arctan, _arctan_slope, 0.0, 1.0, _arctan_shares),
    "elu": Activation(functional.elu, _elu_slope, 0.0, 1.0, _elu_shares),
    "sigmoid": Activation(torch.sigmoid, _sigmoid_slope, 0.0, 0.25, _sigmoid_shares),
    "sine": Activation(torch.sin, torch.cos, -1.0, 1.0, _sine_shares),
    "softplus": Activation(_softplus, torch.sigmoid, 0.0, 1.0, _softplus_shares),
    "tanh": Activation(torch.tanh, _tanh_slope, 0.0, 1.0, _tanh_shares),
}
"""Activations by name."""
