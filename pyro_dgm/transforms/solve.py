# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Solvers of increasing scalar equations, many at once, with gradients: inverses of flows that have no formula for it.

A flow that bends space along one direction is inverted by one scalar equation. Two solvers cover all of them, and one
function gives their results the gradient of the implicit function theorem.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""An increasing function of the real line, elementwise: x to its value and its derivative, each of the shape of x."""


class ConvergenceError(RuntimeError):
    """Some equations have no solution that the solver can find; the message says which, and what is left of them."""


def solve_tanh(c: Tensor, a: Tensor) -> Tensor:
    r"""Solve :math:`z + c \tanh z = a` for z.

    Halley's method, four steps for all elements (three in float32), without a test of convergence for which the device
    would be waited for. With a >= 0, the equation being odd, it starts near the solution, and a step is at most by a
    factor of two. The residual is of the size of the rounding errors of z, c tanh z and a, for c between -1 and 1e6 and
    any a. In z that is a few eps; but where c is close to -1 the left side is flat at 0, and rounding a by eps moves z
    by eps / (1 + c + z^2).

    Args:
        c: Above -1, so that the left side increases. -1 itself (above it before rounding) is taken. Not checked.
        a: Broadcasts with c. What is not finite gives NaN.

    Returns:
        z, of the broadcast shape, with (first-order) gradients to c and a.

    Source: the equation is that of Rezende & Mohamed (ICML 2015), arXiv:1505.05770, appendix A.1.

    Example:
        >>> c, a = torch.tensor([-0.9, 0.0, 9.0]), torch.tensor([0.1, -2.0, 5.0])
        >>> z = solve_tanh(c, a)
        >>> torch.allclose(z + c * z.tanh(), a)
        True
    """
    with torch.no_grad():
        root = _solve_tanh(c.detach(), a.detach().abs()).copysign(a.detach())
        t = root.tanh()
        slope = (t * t + (1 + c) * (1 - t * t)).detach().clamp_min(torch.finfo(a.dtype).eps)
    rest = a - c * t  # z as a function of c and a at a fixed tanh: the numerator of the implicit function theorem
    return root + (rest - rest.detach()) / slope


def _solve_tanh(c: Tensor, a: Tensor) -> Tensor:
    """Solve it for a >= 0. For c < 0 start where a line or a cubic meets a; else at the best of three lower bounds."""
    info = torch.finfo(a.dtype)
    m = 1 + c
    line = a / m.clamp_min(info.tiny)  # tanh z is below z
    bent = torch.minimum(line, torch.maximum(a, 1.44 * a ** (1 / 3)))  # z - tanh z is near z^3 / 3, then below 1
    above = torch.minimum(a, line.clamp_max(1 - info.eps).atanh())
    below = ((a - above) / c.clamp_min(1)).clamp(0, 1 - info.eps).atanh()  # tanh z = (a - z) / c
    z = torch.where(c < 0, bent, torch.maximum(torch.maximum(a - c, line), below))
    for _ in range(4 if info.eps < 1e-10 else 3):  # as many as reach the rounding error from all these starts
        t = z.tanh()
        slope = torch.addcmul(m, t * t, c, value=-1)
        residual = (z - a) + c * t
        square = slope * slope
        halley = torch.maximum(torch.addcmul(square, residual, t * (slope - 1)), square / 2).clamp_min(info.tiny)
        z = torch.addcdiv(z, residual * slope, halley, value=-1).clamp(z / 2, 2 * z)
    return z


def solve_increasing(
    function: Increasing,
    y: Tensor,
    *,
    start: Tensor | None = None,
    lower: Tensor | float | None = None,
    upper: Tensor | float | None = None,
    max_steps: int = 200,
) -> Tensor:
    """Solve ``function(x) = y`` for x, one equation for each element of y.

    Newton's method inside a bracket. A step that leaves the bracket, or is more than half of the step before, is
    replaced by the middle of the bracket; while one side has no bound, by a stride that grows sixteenfold. An element
    is done when its Newton step, or its bracket with a change of sign in it, is below 4 eps (1 + ``|x|``). The loop
    asks after each step whether all elements are done, for which the device is waited for.

    Args:
        function: Increasing; gives value and derivative. It runs without gradients. Wrong derivatives cost steps only.
        y: Right sides.
        start: Where to begin, of the shape of y; None for y, which suits maps near the identity.
        lower: What all x are known to be above, if anything.
        upper: What all x are known to be below, if anything.
        max_steps: Number of evaluations after which to give up.

    Returns:
        x, of the shape of y, without gradients; :func:`attach_gradients` gives them.

    Raises:
        ConvergenceError: If an element of y is not finite, or was not reached.

    Example:
        >>> y = torch.tensor([-3.0, 0.5, 1000.0])
        >>> x = solve_increasing(lambda x: (x + x**3, 1 + 3 * x**2), y)
        >>> torch.allclose(x + x**3, y)
        True
    """
    with torch.no_grad():
        y = y.detach()
        if bool((~y.isfinite()).any()):
            raise ConvergenceError(f"solve_increasing got right sides that are not finite, {_rows(~y.isfinite(), y)}.")
        low = torch.full_like(y, -torch.inf) if lower is None else (y * 0 + lower)
        high = torch.full_like(y, torch.inf) if upper is None else (y * 0 + upper)
        x = (y if start is None else start.detach().expand(y.shape)).clamp(low, high)
        below = above = torch.zeros_like(y, dtype=torch.bool)  # whether a value was seen on that side of y
        done, last, stride = below, torch.full_like(y, torch.inf), 1 + x.abs()
        for _ in range(max_steps):
            value, slope = function(x)
            residual = value - y
            below, above = below | (residual <= 0), above | (residual >= 0)
            low, high = torch.where(residual <= 0, x, low), torch.where(residual >= 0, x, high)
            new, small = _step(x, residual, slope, low, high, torch.minimum(last / 2, stride), stride)
            new, last, stride = torch.where(done | (residual == 0), x, new), (new - x).abs(), 16 * stride
            done = done | small | ((high - low <= _tolerance(x)) & below & above)
            x = new
            if bool(done.all()):
                return x
    raise ConvergenceError(
        f"solve_increasing did not reach y in {max_steps} steps, {_rows(~done, y)}, where function(x) - y is "
        f"{residual[~done][:3].tolist()} at x = {x[~done][:3].tolist()}. Does the function increase from -inf to inf, "
        f"and are its parameters finite? float64 helps where it is nearly flat."
    )


def _tolerance(x: Tensor) -> Tensor:
    return 4 * torch.finfo(x.dtype).eps * (1 + x.abs())


def _step(
    x: Tensor, residual: Tensor, slope: Tensor, low: Tensor, high: Tensor, longest: Tensor, stride: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the next x, inside the bracket, and whether it is the last."""
    newton = x - residual / slope
    inside = (slope > 0) & (newton >= low) & (newton <= high)
    largest = torch.finfo(x.dtype).max / 8
    ahead = torch.where(residual > 0, x - stride, x + stride).clamp(-largest, largest)
    safe = torch.where(low.isfinite() & high.isfinite(), low / 2 + high / 2, ahead)
    last = inside & ((newton - x).abs() <= _tolerance(x))
    return torch.where(last | (inside & ((newton - x).abs() <= longest)), newton, safe), (residual == 0) | last


def _rows(failed: Tensor, y: Tensor) -> str:
    """Say where, for the first three."""
    rows = [tuple(index) for index in failed.nonzero()[:3].tolist()]
    return f"{int(failed.sum())} of {failed.numel()}, first at {rows}: y = {y[failed][:3].tolist()}"


def attach_gradients(function: Increasing, root: Tensor, y: Tensor) -> Tensor:
    r"""Give a solution of ``function(x) = y`` its gradients with respect to y and to the function's parameters.

    A Newton step with a detached derivative, :math:`x - (f_\theta(x) - y) / f'`, of which only the gradients are taken;
    they are those of the implicit function theorem, :math:`dx = (dy - \partial_\theta f\, d\theta) / f'`. First order
    only. Derivatives below eps count as eps.

    Args:
        function: The equation's function.
        root: Its solution, e.g. from :func:`solve_increasing`.
        y: Right sides.

    Returns:
        ``root``, the same numbers.
    """
    root = root.detach()
    value, slope = function(root)
    residual = value - y
    return root - (residual - residual.detach()) / slope.detach().clamp_min(torch.finfo(root.dtype).eps)
