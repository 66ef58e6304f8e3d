# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The exact maximum over one parameter, read off value, slope and curvature, where the function has a known shape.

The expected log-density of an exponential family is, in one parameter at a time, one of a few shapes with two unknown
statistics (a count and a sum). Slope and curvature at the present parameter are two equations for them, so one step
reaches the maximum, whatever program the numbers came from: gathered by a latent variable, shared by sites, masked,
scaled, with a conjugate prior. Every shape is a guess, to be checked at the new point by the move's ``residual``.

>>> x = torch.tensor([2.0, 3.0, 7.0])  # of a Poisson distribution, whose most likely rate is their mean
>>> u = torch.zeros((), requires_grad=True)  # the log of the rate
>>> (slope,) = torch.autograd.grad((x * u - u.exp()).sum(), u, create_graph=True)
>>> power(Landscape(u, slope), order=1).new.exp()
tensor(4.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor


@dataclass(frozen=True)
class Move:
    """A step to the maximum, if the guessed shape is right.

    Attributes:
        new: The parameter there.
        residual: Maps the gradient there to relative numbers that are zero, but for rounding, if it is a maximum.
    """

    new: Tensor
    residual: Callable[[Tensor], Tensor]


class Landscape:
    """A function of one parameter, seen from where it stands.

    Args:
        point: The parameter, with a graph to ``slope``.
        slope: The function's gradient, with a graph to ``point``.
    """

    def __init__(self, point: Tensor, slope: Tensor) -> None:
        self.point, self.slope, self._graph = point.detach(), slope.detach(), (slope, point)

    def times(self, direction: Tensor) -> Tensor:
        """Multiply the Hessian by a direction."""
        slope, point = self._graph
        if not slope.requires_grad:
            return torch.zeros_like(direction)
        (product,) = torch.autograd.grad(slope, point, direction, retain_graph=True, allow_unused=True)
        return torch.zeros_like(direction) if product is None else product

    @cached_property
    def diagonal(self) -> Tensor:
        """The Hessian's diagonal, if every entry of the parameter stands for itself."""
        return self.times(torch.ones_like(self.point))


Form = Callable[[Landscape], Move | None]


def _quotient(top: Tensor, bottom: Tensor) -> Tensor:
    """Divide, and give 0 for 0 / 0."""
    return top / torch.where((top == 0) & (bottom == 0), torch.ones_like(bottom), bottom)


def mean(at: Landscape) -> Move:
    """Maximise -a u^2 / 2 + b u, entry by entry: a weighted mean."""
    curvature = -at.diagonal
    step = _quotient(at.slope, curvature)
    new = at.point + step
    size = curvature * (new.abs() + step.abs()) + curvature.clamp(min=0).sqrt()
    return Move(new, partial(_quotient, bottom=size))


def least_squares(at: Landscape, *, rows: bool) -> Move | None:
    """Maximise -u'A u / 2 + b'u for the last dimension of each row, or for all entries together."""
    shape = (-1, at.point.shape[-1]) if rows and at.point.dim() else (1, -1)
    slope, point = at.slope.reshape(shape), at.point.reshape(shape)
    if point.shape[1] > 64 or point.shape[1] == 1:
        return None  # too many products; or no more than a mean
    columns = []
    for unit in torch.eye(point.shape[1]).to(point):
        columns.append(at.times(unit.expand_as(point).reshape(at.point.shape)).reshape(shape))
    curvature = -torch.stack(columns, -1)
    inverse = torch.linalg.pinv(curvature, hermitian=True)
    step = (inverse @ slope.unsqueeze(-1)).squeeze(-1)
    size = curvature.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    size = size * (size * (point.abs() + step.abs())).amax(-1, keepdim=True) + size
    new, size = (point + step).reshape(at.point.shape), size.reshape(at.point.shape)
    return Move(new, partial(_quotient, bottom=size))


def power(at: Landscape, *, order: int) -> Move | None:
    """Maximise a u - b exp(order u), with u the log of a rate (1), a mean or variance (-1) or a scale (-2)."""
    ratio = 1 - order * _quotient(at.slope, at.diagonal)  # a / (b order exp(order u))
    eps = torch.finfo(ratio.dtype).eps
    if not bool(((ratio > -eps) & (at.diagonal <= 0)).all()):
        return None
    size = (at.slope - at.diagonal / order).abs() + 10 * eps**0.5 * at.diagonal.abs()
    return Move(
        at.point + ratio.clamp(min=eps).log() / order, partial(_quotient, bottom=size)
    )  # a rate of 0 stays near


def logit(at: Landscape) -> Move | None:
    """Maximise a log p + b log(1 - p), with u = logit p."""
    p = at.point.sigmoid()
    count = -_quotient(at.diagonal, p * (1 - p))  # a + b
    tiny = torch.finfo(p.dtype).eps
    new = p + _quotient(at.slope, count)
    if not bool(((count >= 0) & (new > -1e-3) & (new < 1 + 1e-3)).all()):
        return None
    return Move(new.clamp(tiny, 1 - tiny).logit(), partial(_quotient, bottom=count))


def softmax(at: Landscape) -> Move | None:
    """Maximise sum_k a_k log p_k, with u = log p up to a constant, for the last dimension of each row."""
    if at.point.dim() == 0:
        return None
    p = at.point.softmax(-1)
    spread = p * (1 - p)
    best = spread.argmax(-1, keepdim=True)
    unit = torch.zeros_like(p).scatter(-1, best, 1.0)
    count = -_quotient(at.times(unit).gather(-1, best), spread.gather(-1, best))  # sum_k a_k
    new = p + _quotient(at.slope, count.expand_as(p))
    if not bool(((count >= 0) & (new > -1e-3)).all()):
        return None
    new = torch.where(count == 0, at.point, new.clamp(min=torch.finfo(p.dtype).tiny).log())
    return Move(new, lambda slope: _quotient(slope, count.expand_as(slope)))


def _matrix(at: Landscape, *, kind: str) -> Move | None:
    """Maximise over a covariance, a precision or a Cholesky factor of a covariance the log-density of normals."""
    if kind == "cholesky":
        return _cholesky(at)
    root, code = torch.linalg.cholesky_ex((at.point + at.point.mT) / 2)
    slope, bend = (_inside(root, x) for x in (at.slope, at.times(at.point)))
    eye = torch.eye(root.shape[-1]).to(root)
    if kind == "covariance":  # n/2 (M - 1) and n/2 (1 - 2 M), with M the whitened mean square
        square, count = -2 * (slope + bend), 2 * _mean_diagonal(-2 * slope - bend)
        new = torch.where((count == 0)[..., None, None], eye, _per(count, square))
    else:  # n/2 (1 - M) and -n/2
        square, count = -2 * (slope + bend), -2 * _mean_diagonal(bend)
        new = torch.linalg.inv_ex(torch.where((count == 0)[..., None, None], eye, _per(count, square))).inverse
    new = (new + new.mT) / 2
    bad = torch.linalg.cholesky_ex(new).info
    if not bool(((code == 0) & (bad == 0) & (count >= 0)).all()):
        return None
    new = root @ new @ root.mT
    new = (new + new.mT) / 2
    return Move(new, lambda g: _per(count, _inside(torch.linalg.cholesky(new), g)))


def _cholesky(at: Landscape) -> Move | None:
    slope, bend = (_lower(at.point, x) for x in (at.slope, at.times(at.point)))  # n (M - 1) and n (1 - 3 M)
    count = -_mean_diagonal(3 * slope + bend) / 2
    square = -(slope + bend) / 2
    eye = torch.eye(square.shape[-1]).to(square)
    root, code = torch.linalg.cholesky_ex(torch.where((count == 0)[..., None, None], eye, _per(count, square)))
    if not bool(((code == 0) & (count >= 0)).all()):
        return None
    new = at.point @ root
    return Move(new, lambda g: _per(count, _lower(new, g)))


def _per(count: Tensor, matrix: Tensor) -> Tensor:
    return _quotient(matrix, count[..., None, None].expand_as(matrix))


def _inside(root: Tensor, slope: Tensor) -> Tensor:
    """Whiten a gradient by a matrix: L' G L."""
    return root.mT @ ((slope + slope.mT) / 2) @ root


def _lower(root: Tensor, slope: Tensor) -> Tensor:
    """Give the symmetric matrix X of a gradient whose lower triangle is that of L^-T X."""
    lower = (root.mT @ slope.tril()).tril()
    return lower + lower.tril(-1).mT


def _mean_diagonal(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).mean(-1)


# What to try, in this order, by how the parameter is kept: as it is, by its log, its logit, its log-probabilities, or
# as a matrix, of which the value itself is what is looked at.
FORMS: dict[str, dict[str, Form]] = {
    "log": {
        "scale": partial(power, order=-2),
        "rate or precision": partial(power, order=1),
        "mean or variance": partial(power, order=-1),
        "root of a precision": partial(power, order=2),
    },
    "logit": {"probability": logit},
    "softmax": {"probabilities": softmax},
    "cholesky": {"Cholesky factor of a covariance": partial(_matrix, kind="cholesky")},
    "matrix": {
        "covariance": partial(_matrix, kind="covariance"),
        "precision matrix": partial(_matrix, kind="precision"),
    },
}
FORMS["real"] = {
    "weighted mean": mean,
    **{f"log of a {name}": form for name, form in FORMS["log"].items()},
    "logit of a probability": logit,
    "logits of probabilities": softmax,
    "least squares in each row": partial(least_squares, rows=True),
    "least squares": partial(least_squares, rows=False),
}
