# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A guide's samples as leaves of the graph, so that what reaches the guide through them is known from the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_dgm.infer.local_parameters import Program
from pyro_dgm.infer.log_weights import LogWeights
from pyro_dgm.nn.without_autocast import without_autocast


class Draw(NamedTuple):
    """A sample twice: as it was drawn, with its graph, and as the leaf that everybody else got to see."""

    drawn: Tensor
    leaf: Tensor


@dataclass(frozen=True)
class DrawnWeights(LogWeights):
    """Log-weights at leaves: their graph ends at the samples, and not at the parameters these were drawn with.

    Attributes:
        draws: The reparameterised samples, in the order they were drawn.
        dreams: For bounds that teach the guide on the model's own data: log q of those, shape ``(B,)``, or ``None``.
    """

    draws: tuple[Draw, ...] = ()
    dreams: Tensor | None = None


class Draws(Messenger):
    """Exchange each reparameterised sample of one guide for a leaf of the same value, and remember both.

    It has to be the outermost handler: then what it puts in place of a sample is what the trace records, what the rest
    of the guide is computed from, and what the model is replayed on.

    Attributes:
        found: The draws of the last run.
        without_path: Names of the sites whose samples are not reparameterised.
        learned_points: Names of the point masses whose place or log-density depends on parameters by another way than
            earlier draws. What their log q gives to these is no score: its mean is not zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []
        self.without_path: list[str] = []
        self.learned_points: list[str] = []
        self._in_guide = False

    def of(self, guide: Program) -> Program:
        """Wrap the guide whose samples are meant; the model's are let be."""
        if isinstance(poutine.unwrap(guide), GuideMessenger):
            raise ValueError(
                f"{type(poutine.unwrap(guide)).__name__} runs model and guide as one program, so the gradient through "
                f'its samples cannot be told from the rest: use gradient="total", or a guide that is a program.'
            )

        def run(*args: Any, **kwargs: Any) -> Any:
            self.found.clear()
            self.without_path.clear()
            self.learned_points.clear()
            with self._inside():
                return guide(*args, **kwargs)

        return run

    def with_weights(self, weights: LogWeights) -> DrawnWeights:
        """Hand over the samples of the last run, together with what came of it."""
        drawn, self.found = tuple(self.found), []
        return DrawnWeights(**{part.name: getattr(weights, part.name) for part in fields(weights)}, draws=drawn)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._in_guide = True
        try:
            yield
        finally:
            self._in_guide = False

    def _pyro_post_sample(self, msg: Any) -> None:
        if not self._in_guide or msg["is_observed"] or type(msg["fn"]).__name__ == "_Subsample":
            return
        value = msg["value"]
        point = _point_mass(msg["fn"])
        if point is not None and _depends_on_more(
            [value, point.v, point.log_density], [draw.leaf for draw in self.found]
        ):
            self.learned_points.append(msg["name"])
        if not getattr(msg["fn"], "has_rsample", False):
            self.without_path.append(msg["name"])
        elif hasattr(value, "_unquantize"):  # scored where it was before it was rounded, which a leaf has forgotten
            raise ValueError(
                f"The site {msg['name']!r} is rounded, but scored before that: log q is not a function of the sample "
                f'and has no path through it: use gradient="total", or a relaxed distribution that does not round.'
            )
        elif isinstance(value, Tensor) and value.requires_grad:
            leaf = value.detach().requires_grad_()
            self.found.append(Draw(value, leaf))
            msg["value"] = leaf


def _point_mass(fn: Any) -> Any:
    """Look for a point mass inside of what masks it, makes it an event or transforms it; ``None`` if there is none."""
    while not isinstance(fn, Delta) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn if isinstance(fn, Delta) else None


def _depends_on_more(tensors: list[Tensor], leaves: list[Tensor]) -> bool:
    """Whether any tensor's graph ends at another tensor than these leaves."""
    known = {id(leaf) for leaf in leaves}
    if any(part.requires_grad and part.grad_fn is None and id(part) not in known for part in tensors):
        return True
    nodes = [part.grad_fn for part in tensors if part.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        variable = getattr(node, "variable", None)  # of the node where a graph ends
        if variable is not None and id(variable) not in known:
            return True
        more = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= more
        nodes.extend(more)
    return False


def inject(draws: tuple[Draw, ...], terms: list[tuple[Tensor, Tensor]]) -> Tensor | float:
    r"""Give a number that is zero and has the gradient of some terms through the samples alone.

    .. math:: \sum_t \Bigl\langle c_t, \frac{\partial t}{\partial z} \Bigr\rangle \frac{d z}{d \phi}

    The samples are gone through from last to first: what a later one owes to an earlier one is handed on to it.

    Args:
        draws: The samples.
        terms: Pairs of a term, computed from the leaves, and its weights, of the same shape.

    Returns:
        A scalar, or 0 if no sample has a path to a parameter.
    """
    terms = [(term, weight) for term, weight in terms if term.requires_grad]
    if not draws or not terms:
        return 0.0
    with without_autocast(terms[0][0]):
        return _injected(draws, terms)


def _injected(draws: tuple[Draw, ...], terms: list[tuple[Tensor, Tensor]]) -> Tensor | float:
    leaves = [draw.leaf for draw in draws]
    outputs, weights = zip(*terms, strict=True)
    slopes: list[Tensor | None] = [
        *torch.autograd.grad(outputs, leaves, weights, retain_graph=True, allow_unused=True),
    ]
    total: Tensor | float = 0.0
    for turn in reversed(range(len(draws))):
        drawn, slope = draws[turn].drawn, slopes[turn]
        if slope is None:
            continue
        if turn:
            handed = torch.autograd.grad(drawn, leaves[:turn], slope, retain_graph=True, allow_unused=True)
            for earlier, more in enumerate(handed):
                if more is not None:
                    known = slopes[earlier]
                    slopes[earlier] = more if known is None else known + more
        total = total + (slope * (drawn - drawn.detach())).sum()
    return total


def guide_detached(weights: LogWeights) -> LogWeights:
    """Let the guide's terms be numbers, so that what is computed from them has no gradient to log q."""
    return replace(
        weights,
        scaled=None if weights.scaled is None else guide_detached(weights.scaled),
        guide_terms={name: term.detach() for name, term in weights.guide_terms.items()},
        sites={name: replace(site, held=True) for name, site in weights.sites.items()},
    )
