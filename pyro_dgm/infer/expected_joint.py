# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The log joint of a Pyro program, averaged exactly over the factors of a mean-field posterior, site by site."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_dgm.infer.conjugate_factor import Node, stripped
from pyro_dgm.infer.particles import sample_sites

Values = dict[str, Tensor]
Nodes = dict[str, list[Node]]


class _AtMeans(Messenger):
    """Give rates and probabilities their prior mean: a draw from a broad prior can be too extreme to start from."""

    def _pyro_sample(self, msg: Any) -> None:
        kind = type(stripped(msg["fn"])).__name__
        if kind in {"Gamma", "Exponential", "Beta", "Dirichlet"} and not msg["is_observed"]:
            msg["value"], msg["done"] = msg["fn"].mean, True


class ExpectedJoint:
    r"""What a program says about its sites, and which sites speak of which.

    .. math:: E_q \log p(x, t) = \sum_f E_q \log p_f = \sum_f \sum_{i} w_i \log p_f(t_i)

    A site's log-probability depends on few others, its parents, and is averaged over their nodes only.

    Args:
        model: A Pyro program that observes its data.
        args: What it is called with.
        kwargs: Likewise, by name.
        seed: Of the run whose draws are the start; rates and probabilities are at their prior means in it.

    Attributes:
        sites: The latent sites of that run, by name.
        children: For each latent site, the names of the sites that speak of it, itself among them.

    Raises:
        ValueError: If there is no latent site, one of them is scaled (by subsampling, say), or a site outside a
            plate depends on a discrete one in it.
    """

    def __init__(
        self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, seed: int = 0
    ) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            with _AtMeans():
                trace = poutine.trace(model).get_trace(*args, **kwargs)
            upstream: Any = get_dependencies(model, args, kwargs)["prior_dependencies"]
        found = sample_sites(trace)
        self.sites = {name: site for name, site in found.items() if not site["is_observed"]}
        if not self.sites:
            raise ValueError("MeanField got a model without latent sites: there is nothing to infer.")
        self.parents = {name: frozenset(upstream.get(name, {})) & self.sites.keys() for name in found}
        self.children = {name: [other for other in found if name in self.parents[other]] for name in self.sites}
        self._check(found)

    def _check(self, found: dict[str, Any]) -> None:
        for name, site in self.sites.items():
            if not isinstance(site["scale"], int | float) or site["scale"] != 1:
                raise ValueError(
                    f"MeanField got the site {name!r} with a scale of {site['scale']}: it needs all data at once, in "
                    f"plates without subsampling. For mini-batches use CoordinateAscent with online=, or ELBO."
                )
            if not getattr(site["fn"], "has_enumerate_support", False):
                continue
            for child in self.children[name]:
                missing = _plates(site) - _plates(found[child])
                if missing:
                    raise ValueError(
                        f"MeanField got the site {child!r}, which depends on the discrete site {name!r} but is outside "
                        f"of its plate {sorted(missing)[0][0]!r}: the elements would depend on each other."
                    )

    def log_probs(self, values: Values, names: Iterable[str]) -> Values:
        """Score sites at values of all latent sites, each in its batch shape, in nats."""
        with pyro.validation_enabled(is_validate=False):
            trace = poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.args, **self.kwargs)
            wanted = set(names)
            trace.compute_log_prob(lambda name, _: name in wanted)
        return {name: trace.nodes[name]["log_prob"] for name in wanted}

    def terms(self, nodes: Nodes, names: Iterable[str], held: Values) -> Iterator[Tensor]:
        """Give the weighted log-probabilities that add up to the expectation of some sites'.

        Args:
            nodes: Points and weights for each latent site.
            names: The sites to score.
            held: Values of sites that are not averaged over.

        Returns:
            Tensors of the sites' batch shapes, in nats.
        """
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in names:
            groups[tuple(sorted(self.parents[name] - held.keys()))].append(name)
        anything = {name: points[0][0] for name, points in nodes.items()}
        for free, members in groups.items():
            for chosen in product(*(nodes[name] for name in free)):
                points = {name: point for name, (point, _) in zip(free, chosen, strict=True)}
                weight = math.prod(weight for _, weight in chosen)
                for log_prob in self.log_probs({**anything, **points, **held}, members).values():
                    yield _weigh(log_prob, weight)

    def expectation(self, nodes: Nodes) -> Tensor:
        """Average the log joint over all sites, in nats, 0-dim."""
        return torch.stack([term.sum() for term in self.terms(nodes, self.parents, {})]).sum()

    def gradient(self, nodes: Nodes, name: str, point: Tensor) -> Tensor:
        """Differentiate the log joint, averaged over the other sites, to one site's value at a point."""
        total = torch.zeros_like(point)
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            for term in self.terms(nodes, self.children[name], {name: leaf}):
                (part,) = torch.autograd.grad(term.sum(), leaf, allow_unused=True)
                total = total if part is None else total + part
        return total

    def table(self, nodes: Nodes, name: str, value: Tensor) -> Tensor:
        """Average what depends on a discrete site over the other sites, for each element of its batch at a value."""
        shape = value.shape
        total = torch.zeros(shape, dtype=nodes[name][0][1].dtype, device=value.device)  # type: ignore[union-attr]
        for term in self.terms(nodes, self.children[name], {name: value}):
            total = total + term.expand(torch.broadcast_shapes(term.shape, shape)).sum_to_size(shape)
        return total


def _plates(site: Any) -> set[tuple[str, int]]:
    return {(frame.name, frame.dim) for frame in site["cond_indep_stack"] if frame.vectorized}


def _weigh(log_prob: Tensor, weight: Tensor | int | float) -> Tensor:
    """Multiply; what has no probability counts nothing, even if it is impossible."""
    if not isinstance(weight, Tensor):
        return weight * log_prob
    return weight * log_prob.where(weight > 0, 0.0)
