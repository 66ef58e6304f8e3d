# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The M-step of a program: jump to the maximum where its shape is known, climb by gradients elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_dgm.infer.closed_forms import FORMS, Form, Landscape, Move
from pyro_dgm.infer.program_parameters import ProgramParameter

Expectation = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]


class Surrogate:
    """The function that an M-step maximises: an expected log-density, of the parameters as they are now.

    Args:
        expectation: Maps values of parameters by name (of those that have a transform) to the function's value, and
            to the sum of the absolute terms that it is made of.
        parameters: Its parameters, changed in place.
    """

    def __init__(self, expectation: Expectation, parameters: list[ProgramParameter]) -> None:
        self.expectation, self.parameters = expectation, parameters

    def __call__(self, looked_at: ProgramParameter | None = None) -> "_Seen":
        """Evaluate, ready for derivatives by every parameter, as closed forms look at it if it is the one looked at."""
        values, point = {}, None if looked_at is None else looked_at.leaf
        for parameter in self.parameters:
            if parameter.transform is None:
                continue
            value = parameter.value()
            if parameter is looked_at and parameter.by_value:
                value = point = value.detach().requires_grad_()
            values[parameter.name] = value
        return _Seen(*self.expectation(values), point)


@dataclass(frozen=True)
class _Seen:
    """The function's value with its graph, its size, and the tensor of the parameter that was looked at."""

    total: Tensor
    size: Tensor
    point: Tensor | None

    def slope(self, point: Tensor, *, bend: bool) -> Tensor | None:
        """Differentiate by a parameter, and twice if there is a bend to follow; None if nothing depends on it."""
        if not self.total.requires_grad:
            return None
        return torch.autograd.grad(self.total, point, create_graph=bend, retain_graph=True, allow_unused=True)[0]


def maximize(surrogate: Surrogate, *, closed_forms: bool, steps: int, count: int) -> dict[str, str]:
    """Maximise in place, each parameter in the best way that it has.

    Args:
        surrogate: What to maximise.
        closed_forms: Whether to look for closed forms.
        steps: Steps of L-BFGS for the others.
        count: The number of data, by which the function is divided for them.

    Returns:
        Which parameter went which way.

    Raises:
        ValueError: If the function or its gradient is not finite, or it has no maximum.
    """
    ways: dict[str, str] = {}
    with pyro.validation_enabled(is_validate=False):  # checks come with the E-step; line searches may look too far
        for _ in range(2):
            known, seen = [parameter.form for parameter in surrogate.parameters], None
            for parameter in sorted(surrogate.parameters, key=_order):
                ways[parameter.name], seen = _jump(surrogate, parameter, seen, closed_forms=closed_forms)
            if known == [parameter.form for parameter in surrogate.parameters]:
                break  # else once more: now it is known which of them are means, and have to come first
        rest = [parameter for parameter in surrogate.parameters if ways[parameter.name] == "gradient"]
        if rest:
            _climb(surrogate, rest, steps=steps, count=count)
    return {name: ways[name] for name in sorted(ways)}


def _order(parameter: ProgramParameter) -> tuple[bool, bool]:
    is_mean = parameter.form in ("weighted mean", "least squares", "least squares in each row")
    return not is_mean, parameter.kept != "real"


def _jump(
    surrogate: Surrogate, parameter: ProgramParameter, seen: _Seen | None, *, closed_forms: bool
) -> tuple[str, _Seen]:
    """Try the closed forms that fit how the parameter is kept, the one that worked last time first.

    ``seen`` is the function where the parameters are, if it is known: every step ends with a look at where it led.
    """
    if seen is None or parameter.by_value:
        seen = surrogate(parameter)
    point = parameter.leaf if seen.point is None or not parameter.by_value else seen.point
    slope = seen.slope(point, bend=True)
    if slope is None:
        return "unused", seen
    if not bool(slope.isfinite().all() & seen.total.isfinite()):
        raise ValueError(
            f"EnumeratedEM got an expected log-density of {float(seen.total.detach())} whose gradient at "
            f"{parameter.name!r} is not finite: a variance or probability may have collapsed to zero. Give it a prior, "
            f"or other starts."
        )
    forms = FORMS.get(parameter.kept, {}) if closed_forms and parameter.misses < 3 else {}
    at, old = Landscape(point, slope), parameter.leaf.detach().clone()
    for name in sorted(forms, key=lambda name: name != parameter.form):
        move = _guess(forms[name], at)
        landed = None if move is None else _land(surrogate, parameter, move, seen)
        if landed is not None:
            parameter.form, parameter.misses = name, 0
            return f"closed form: {name}", landed
        parameter.place(old)
    if forms and parameter.kept == "log" and bool(((at.diagonal == 0) & (at.slope != 0)).any()):
        raise ValueError(
            f"EnumeratedEM found no maximum in {parameter.name!r}: the expected log-density rises without end as its "
            f"logarithm goes on, as with a scale that has collapsed onto a datum. Give it a prior, or other starts."
        )
    parameter.form, parameter.misses = None, parameter.misses + 1
    return "gradient", seen


def _guess(form: Form, at: Landscape) -> Move | None:
    try:
        move = form(at)
    except torch.linalg.LinAlgError:
        return None  # such a matrix is no maximum
    return move if move is not None and bool(move.new.isfinite().all()) else None


def _land(surrogate: Surrogate, parameter: ProgramParameter, move: Move, before: _Seen) -> _Seen | None:
    """Make the move, and look whether it led to a maximum, up to rounding."""
    parameter.move(move.new)
    try:
        after = surrogate(parameter)
    except torch.linalg.LinAlgError:
        return None
    slope = after.slope(parameter.leaf if after.point is None else after.point, bend=False)
    if slope is None or not bool(after.total.isfinite()):
        return None
    eps = torch.finfo(slope.dtype).eps
    flat = (move.residual(slope).abs() <= eps**0.5).all()
    risen = after.total >= before.total - 100 * eps * (before.size + after.size)
    return after if bool(flat & risen) else None


def _climb(surrogate: Surrogate, rest: list[ProgramParameter], *, steps: int, count: int) -> None:
    """Climb by L-BFGS, and take it back for a short step uphill if it went down."""
    leaves = [parameter.leaf for parameter in rest]
    old = [leaf.detach().clone() for leaf in leaves]

    def loss() -> Tensor:
        value, gradients = _slope(surrogate, leaves)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = -gradient / count
        return -value / count

    optimizer = torch.optim.LBFGS(
        leaves, max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-14
    )
    before, uphill = _slope(surrogate, leaves)
    optimizer.step(loss)
    for leaf in leaves:
        leaf.grad = None
    if _slope(surrogate, leaves)[0] >= before:
        return
    length = torch.stack([gradient.square().sum() for gradient in uphill]).sum().sqrt().clamp(min=1e-30)
    for halvings in range(40):
        with torch.no_grad():
            for leaf, place, gradient in zip(leaves, old, uphill, strict=True):
                leaf.copy_(place + gradient * (0.5**halvings / length))
        if _slope(surrogate, leaves)[0] >= before:
            return
    with torch.no_grad():
        for leaf, place in zip(leaves, old, strict=True):
            leaf.copy_(place)


def _slope(surrogate: Surrogate, leaves: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Give the function and its gradient; minus infinity where there is none."""
    try:
        total = surrogate().total
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    except torch.linalg.LinAlgError:
        return leaves[0].new_full((), -torch.inf), [torch.zeros_like(leaf) for leaf in leaves]
    gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
    if not bool(torch.stack([total.isfinite(), *[gradient.isfinite().all() for gradient in gradients]]).all()):
        return leaves[0].new_full((), -torch.inf), [torch.zeros_like(leaf) for leaf in leaves]
    return total.detach(), gradients
