# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The same flows here and in other libraries, each as two functions: value with log-determinant, and the inverse.

Nets have two hidden layers of 128 units with ReLU, splines 8 bins, everywhere. The first function runs in the direction
in which the flow is one pass. Importing zuko switches validation off for all of torch, so nothing else imports this.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import normflows
import zuko
from nflows import transforms as nflows
from nflows.nn.nets import MLP as NFlowsMLP
from pyro import nn as pyro_nn
from pyro.distributions import transforms as pyro
from torch import Tensor, nn, randperm
from torch.nn import functional
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform

from pyro_dgm import transforms as ours
from pyro_dgm.nn import MLP

Families = dict[str, dict[str, "Callable[[], Entry]"]]
Pair = Callable[[Tensor], tuple[Tensor, Tensor]]
HIDDEN, BINS, TAIL = (128, 128), 8, 3.0
RQS = {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(BINS,), (BINS,), (BINS - 1,)]}
SPLINE = {"num_bins": BINS, "tails": "linear", "tail_bound": TAIL}
MASKED = {"use_residual_blocks": False, "hidden_features": HIDDEN[0], "num_blocks": 1}


class WithoutContext(NFlowsMLP):
    """The net that nflows' couplings call with a context, which is None."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((inputs,), (outputs,), list(HIDDEN), activation=functional.relu)

    def forward(self, inputs: Tensor, context: None = None) -> Tensor:
        return super().forward(inputs)


class Entry(NamedTuple):
    """A flow of one library: its module, value and log-determinant, and the inverse if there is one."""

    module: nn.Module
    forward: Pair
    inverse: Callable[[Tensor], Any] | None


def mine(flow: ours.FlowTransform) -> Entry:
    """Ours: the parallel direction is forward, but for flows that are parallel when they score."""
    if isinstance(flow, ours.MaskedAutoregressive | ours.SplineAutoregressive):
        return Entry(flow, flow.inverse_and_logdet, flow.forward_and_logdet)
    return Entry(flow, flow.forward_and_logdet, flow.inverse_and_logdet)


def of_pyro(*parts: Any, invertible: bool = False) -> Entry:
    """Pyro's: each part is called, then asked for the log-determinant, as `TransformedDistribution` does."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(())
        for part in parts:
            y = part(x)
            logdet = part.log_abs_det_jacobian(x, y)
            total, x = total + (logdet if part.domain.event_dim else logdet.sum(-1)), y
        return x, total

    def inverse(y: Tensor) -> Tensor:
        for part in reversed(parts):
            y = part.inv(y)
        return y

    modules = [part for part in parts if isinstance(part, nn.Module)]
    return Entry(nn.ModuleList(modules), forward, inverse if invertible else None)


def of_zuko(lazy: Any) -> Entry:
    return Entry(lazy, lambda x: lazy().call_and_ladj(x), lambda y: lazy().inv.call_and_ladj(y))


def of_nflows(transform: Any) -> Entry:
    return Entry(transform, transform, transform.inverse)


def of_normflows(*parts: Any, invertible: bool = True) -> Entry:
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for part in parts:
            x, logdet = part(x)
            total = total + logdet
        return x, total

    def inverse(y: Tensor) -> Tensor:
        for part in reversed(parts):
            y = part.inverse(y)[0]
        return y

    return Entry(nn.ModuleList(parts), forward, inverse if invertible else None)


def flows(dim: int) -> Families:
    """Name every flow with its constructors by library; ours is first."""
    families = (_stacks, _couplings, _spline_coupling, _autoregressive, _spline_autoregressive, _linear, _norms)
    return {name: libraries for family in families for name, libraries in family(dim).items()}


def _stacks(dim: int) -> Families:
    sylvester = partial(pyro.Sylvester, dim, 8)
    return {
        "Planar x16": {
            "pyro_dgm": lambda: mine(ours.Planar(dim, depth=16)),
            "pyro": lambda: of_pyro(*(pyro.Planar(dim) for _ in range(16))),
            "normflows": lambda: of_normflows(*(normflows.flows.Planar((dim,)) for _ in range(16)), invertible=False),
        },
        "Radial x16": {
            "pyro_dgm": lambda: mine(ours.Radial(dim, depth=16)),
            "pyro": lambda: of_pyro(*(pyro.Radial(dim) for _ in range(16))),
            "normflows": lambda: of_normflows(*(normflows.flows.Radial((dim,)) for _ in range(16)), invertible=False),
        },
        "HouseholderSylvester x16, 8 reflections": {
            "pyro_dgm": lambda: mine(ours.HouseholderSylvester(dim, depth=16, reflections=8)),
            "pyro": lambda: of_pyro(*(sylvester() for _ in range(16))),
        },
        "OrthogonalSylvester x16, M = 32": {
            "pyro_dgm": lambda: mine(ours.OrthogonalSylvester(dim, depth=16, bottleneck=32)),
            "pyro": lambda: of_pyro(*(sylvester() for _ in range(16))),
        },
        "TriangularSylvester x16": {
            "pyro_dgm": lambda: mine(ours.TriangularSylvester(dim, depth=16)),
            "pyro": lambda: of_pyro(*(sylvester() for _ in range(16))),
        },
        "Householder, 8 reflections": {
            "pyro_dgm": lambda: mine(ours.Householder(dim, reflections=8)),
            "pyro": lambda: of_pyro(pyro.Householder(dim, 8), invertible=True),
            "nflows": lambda: of_nflows(nflows.HouseholderSequence(dim, 8)),
        },
    }


def _couplings(dim: int) -> Families:
    half, net = dim // 2, partial(MLP, hidden=HIDDEN)
    mask = [i % 2 for i in range(dim)]

    return {
        "AdditiveCoupling": {
            "pyro_dgm": lambda: mine(ours.AdditiveCoupling(dim, net=net)),
            "nflows": lambda: of_nflows(nflows.AdditiveCouplingTransform(mask, WithoutContext)),
            "zuko": lambda: _zuko_coupling(dim, univariate=zuko.transforms.AdditiveTransform, shapes=[()]),
        },
        "AffineCoupling": {
            "pyro_dgm": lambda: mine(ours.AffineCoupling(dim, net=net)),
            "pyro": lambda: of_pyro(
                pyro.AffineCoupling(half, pyro_nn.DenseNN(half, list(HIDDEN), [half, half])), invertible=True
            ),
            "zuko": lambda: _zuko_coupling(dim),
            "nflows": lambda: of_nflows(nflows.AffineCouplingTransform(mask, WithoutContext)),
            "normflows": lambda: of_normflows(
                normflows.flows.AffineCouplingBlock(normflows.nets.MLP([half, *HIDDEN, dim], init_zeros=True))
            ),
        },
    }


def _spline_coupling(dim: int) -> Families:
    half, net = dim // 2, partial(MLP, hidden=HIDDEN)
    mask = [i % 2 for i in range(dim)]
    dense = partial(pyro_nn.DenseNN, half, list(HIDDEN), [half * BINS, half * BINS, half * (BINS - 1)])
    return {
        "SplineCoupling": {
            "pyro_dgm": lambda: mine(ours.SplineCoupling(dim, net=net)),
            "pyro": lambda: of_pyro(
                pyro.SplineCoupling(dim, half, dense(), BINS, TAIL, "quadratic", identity=True), invertible=True
            ),
            "zuko": lambda: _zuko_coupling(dim, **RQS),
            "nflows": lambda: of_nflows(
                nflows.PiecewiseRationalQuadraticCouplingTransform(mask, WithoutContext, **SPLINE)
            ),
            "normflows": lambda: of_normflows(
                normflows.flows.CoupledRationalQuadraticSpline(dim, 1, HIDDEN[0], num_bins=BINS, tail_bound=TAIL)
            ),
        },
    }


def _autoregressive(dim: int) -> Families:
    masked_affine = {
        "pyro": lambda: of_pyro(pyro.AffineAutoregressive(_pyro_made(dim, 1, 1)), invertible=True),
        "zuko": lambda: _zuko_masked(dim),
        "nflows": lambda: of_nflows(nflows.MaskedAffineAutoregressiveTransform(dim, **MASKED)),
        "normflows": lambda: of_normflows(normflows.flows.MaskedAffineAutoregressive(dim, **MASKED)),
    }
    return {
        "MaskedAutoregressive": {
            "pyro_dgm": lambda: mine(ours.MaskedAutoregressive(dim, hidden=HIDDEN)),
            **masked_affine,
        },
        "InverseAutoregressive": {
            "pyro_dgm": lambda: mine(ours.InverseAutoregressive(dim, hidden=HIDDEN)),
            **masked_affine,
        },
    }


def _spline_autoregressive(dim: int) -> Families:
    return {
        "SplineAutoregressive": {
            "pyro_dgm": lambda: mine(ours.SplineAutoregressive(dim, hidden=HIDDEN)),
            "pyro": lambda: of_pyro(
                pyro.SplineAutoregressive(dim, _pyro_made(dim, BINS, BINS, BINS - 1), BINS, TAIL, order="quadratic"),
                invertible=True,
            ),
            "zuko": lambda: _zuko_masked(dim, **RQS),
            "nflows": lambda: of_nflows(
                nflows.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(dim, **MASKED, **SPLINE)
            ),
            "normflows": lambda: _turned(
                normflows.flows.AutoregressiveRationalQuadraticSpline(dim, 1, HIDDEN[0], num_bins=BINS, tail_bound=TAIL)
            ),
        },
        "NeuralAutoregressive, 8 units": {
            "pyro_dgm": lambda: mine(ours.NeuralAutoregressive(dim, hidden=HIDDEN, units=8)),
            "pyro": lambda: of_pyro(pyro.NeuralAutoregressive(_pyro_made(dim, 8, 8, 8), hidden_units=8)),
        },
    }


def _linear(dim: int) -> Families:
    return {
        "LULinear": {
            "pyro_dgm": lambda: mine(ours.LULinear(dim)),
            "nflows": lambda: of_nflows(nflows.LULinear(dim)),
            "normflows": lambda: of_normflows(normflows.flows.LULinearPermute(dim)),
        },
        "QRLinear, 8 reflections": {
            "pyro_dgm": lambda: mine(ours.QRLinear(dim, reflections=8)),
            "nflows": lambda: of_nflows(nflows.QRLinear(dim, 8)),
        },
    }


def _norms(dim: int) -> Families:
    order = randperm(dim)
    return {
        "ActNorm": {
            "pyro_dgm": lambda: mine(ours.ActNorm(dim)),
            "nflows": lambda: of_nflows(nflows.ActNorm(dim)),
            "normflows": lambda: of_normflows(normflows.flows.ActNorm((dim,))),
        },
        "BatchNorm": {
            "pyro_dgm": lambda: _scoring(ours.BatchNorm(dim)),
            "nflows": lambda: Entry(batch_norm := nflows.BatchNorm(dim), batch_norm, None),
            "pyro": lambda: _pyro_batch_norm(dim),
        },
        "Permute": {
            "pyro_dgm": lambda: mine(ours.Permute(order.tolist())),
            "pyro": lambda: of_pyro(pyro.Permute(order), invertible=True),
            "nflows": lambda: of_nflows(nflows.Permutation(order)),
        },
    }


def _zuko_coupling(dim: int, **kwargs: Any) -> Entry:
    return of_zuko(GeneralCouplingTransform(dim, hidden_features=HIDDEN, **kwargs))


def _zuko_masked(dim: int, **kwargs: Any) -> Entry:
    return of_zuko(MaskedAutoregressiveTransform(dim, hidden_features=HIDDEN, **kwargs))


def _pyro_made(dim: int, *sizes: int) -> nn.Module:
    return pyro_nn.AutoRegressiveNN(dim, list(HIDDEN), param_dims=sizes)


def _turned(flow: nn.Module) -> Entry:
    """A flow of normflows that is one pass when it scores."""
    return Entry(flow, flow.inverse, lambda y: flow(y)[0])


def _scoring(flow: ours.FlowTransform) -> Entry:
    """A batch norm in the direction in which it normalises, the only one that others have in training."""
    return Entry(flow, flow.inverse_and_logdet, None)


def _pyro_batch_norm(dim: int) -> Entry:
    flow = pyro.BatchNorm(dim)

    def forward(y: Tensor) -> tuple[Tensor, Tensor]:
        x = flow.inv(y)
        return x, -flow.log_abs_det_jacobian(x, y).sum(-1).expand(len(y))

    return Entry(flow, forward, None)
