# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A path of densities of the latent variables leads from where samples are easy to the posterior."""

import math
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to, constraints

from pyro_dgm.evaluate.annealable import Program, Sites, check_latent, data_dim, plain
from pyro_dgm.evaluate.tempered import Tempered
from pyro_dgm.infer.local_parameters import without_statements
from pyro_dgm.infer.particles import PLATE, plate_nesting, sample_sites
from pyro_dgm.infer.reduction import Reduction


class LatentPath:
    r"""Score the latent variables of a batch for many chains at once, on both ends of a path, with gradients.

    .. math:: \log f_\beta(z) = (1 - \beta) \log s(z) + \beta \log p(x, z), \qquad
              s(z) = p(z) \ \text{or}\ q(z \mid x)

    All latent sites of one datum are one vector u of real numbers: `torch.distributions.biject_to` maps u to the sites'
    supports, and its log-determinant is part of every density. Each call runs the model once; a guide runs anew only if
    it has several sites, since the distribution of a single one does not depend on its value.

    Args:
        model: A Pyro program with a data plate; its latent sites must be continuous and inside the plate.
        guide: Its guide, where the path then starts; ``None`` starts from the prior.
        x: Data of shape ``(B, *event)``.
        chains: Number of chains C for each datum: the outermost plate of every run.

    Raises:
        ValueError: If a latent variable is discrete, belongs to no datum, or is missing from the guide; or the guide
            has others, or is an autoguide.
    """

    def __init__(self, model: Program, guide: Program | None, x: Tensor, *, chains: int) -> None:
        self.x, self.chains = x, chains
        self.model = without_statements(model)
        self.guide = None if guide is None else without_statements(plain(guide))
        bare = poutine.trace(model).get_trace(x)  # counts the plates; with validation, if it is on
        traces = [bare] if guide is None else [bare, poutine.trace(guide).get_trace(x)]
        self.nesting = plate_nesting(*traces)
        sites = [site for trace in traces for site in sample_sites(trace).values()]
        self.latent = [name for name, site in sample_sites(bare).items() if not site["is_observed"]]
        self.data_dim = data_dim(sites)
        check_latent(sample_sites(bare), self.latent, None if guide is None else sample_sites(traces[1]))
        self.plate = pyro.plate(PLATE, chains, dim=-self.nesting - 1)
        self.shapes: dict[str, torch.Size] = {}  # of each site's unconstrained value, data second, then all its own
        self._posterior: Any = None

    def draw(self) -> Tensor:
        """Sample where the path starts: vectors u of shape ``(C, B, D)``."""
        model = self.model
        if self.guide is not None:
            drawn: Sites = dict(self._trace(self.guide).nodes)
            model = poutine.condition(model, data={name: drawn[name]["value"] for name in self.latent})
            if len(self.latent) == 1:
                self._posterior = drawn[self.latent[0]]
        return self._pack(self._trace(model))

    def pack(self, values: dict[str, Tensor]) -> Tensor:
        """Turn one value of each latent site, shape ``(B, *site)``, into vectors of shape ``(C, B, D)``, equal in C.

        Raises:
            ValueError: If a site is missing.
        """
        missing = sorted(set(self.latent) - set(values))
        if missing:
            raise ValueError(f"Values of the latent sites {missing} are missing; {sorted(values)} were given.")
        return self._pack(self._trace(poutine.condition(self.model, data={name: values[name] for name in self.latent})))

    def __call__(self, u: Tensor) -> Tempered:
        """Score vectors of shape ``(C, B, D)``, with gradients."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            first, second = self._ends(u)
            start_slope, end_slope = _slope(first, u), _slope(second, u)
        return Tempered(u.detach(), first.detach(), second.detach(), start_slope, end_slope, self.guide is None)

    def _ends(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Give log s and either log p(x | z), from the prior on, or log p(x, z)."""
        run = _Run(self, u)
        self._run(self.model, run)
        prior, likelihood = run.prior, run.likelihood.expand(run.prior.shape)
        if self.guide is None:
            return prior + run.log_det, likelihood
        if self._posterior is not None:
            site, value = self._posterior, run.values[self.latent[0]]
            posterior = self.reduce(scale_and_mask(site["fn"].log_prob(value), 1.0, site["mask"]))
        else:
            echo = _Run(self, run.values)
            self._run(self.guide, echo)
            posterior = echo.prior
        return posterior + run.log_det, prior + likelihood + run.log_det

    def _run(self, program: Program, handler: Messenger) -> None:
        with handler, self.plate:
            program(self.x)

    def _trace(self, program: Program) -> poutine.Trace:
        tracer = poutine.trace()
        self._run(program, tracer)
        return tracer.trace

    def _pack(self, trace: poutine.Trace) -> Tensor:
        parts = []
        for name in self.latent:
            site: Any = trace.nodes[name]
            value = site["value"].expand(site["fn"].batch_shape + site["fn"].event_shape)
            u = biject_to(_support(site["fn"].support)).inv(value).movedim(1 + self.nesting + self.data_dim, 1)
            self.shapes[name] = u.shape[2:]
            parts.append(u.flatten(2) if u.dim() > 2 else u.unsqueeze(2))
        vectors = torch.cat(parts, -1)
        if vectors.shape[:2] != (self.chains, len(self.x)):
            raise ValueError(
                f"The latent variables of {self.chains} chains and x of shape {tuple(self.x.shape)} have shape "
                f"{tuple(vectors.shape[:2])}: one of each is needed. The data plate must not subsample."
            )
        return vectors

    def unpack(self, u: Tensor) -> dict[str, Tensor]:
        """Cut vectors into the unconstrained values of the sites, shaped as their distributions are."""
        sizes = [math.prod(self.shapes[name]) for name in self.latent]
        return {
            name: part.reshape(part.shape[:2] + self.shapes[name]).movedim(1, 1 + self.nesting + self.data_dim)
            for name, part in zip(self.latent, u.split(sizes, -1), strict=True)
        }

    def reduce(self, log_prob: Tensor) -> Tensor:
        """Sum a site's log-probability over all dimensions but the chains and the data: shape ``(C, B)``."""
        return Reduction(self.nesting, [self.data_dim], self.chains)(log_prob)


class _Run(Messenger):
    """Put values into the latent sites of one run and add up log-probabilities.

    Args:
        path: Knows the sites.
        given: Vectors u, which each site maps to its support, or the sites' values themselves.
    """

    def __init__(self, path: LatentPath, given: Tensor | dict[str, Tensor]) -> None:
        super().__init__()
        self.path, self.ready = path, isinstance(given, dict)
        self.values: dict[str, Tensor] = dict(given) if isinstance(given, dict) else path.unpack(given)
        some = next(iter(self.values.values())) if isinstance(given, dict) else given
        self.prior = self.likelihood = self.log_det = some.new_zeros(())

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.path.latent:
            return
        if not self.ready and not _is_real(support := _support(msg["fn"].support)):
            to_support, u = biject_to(support), self.values[name]
            self.values[name] = to_support(u)
            log_det = to_support.log_abs_det_jacobian(u, self.values[name])
            self.log_det = self.log_det + self.path.reduce(log_det)
        msg["value"], msg["done"] = self.values[name], True

    def _pyro_post_sample(self, msg: Any) -> None:
        if type(msg["fn"]).__name__ == "_Subsample" or (msg["infer"] or {}).get("_deterministic"):
            return
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        term = self.path.reduce(scale_and_mask(log_prob, 1.0, msg["mask"]))
        if msg["name"] in self.path.latent:
            self.prior = self.prior + term
        else:
            self.likelihood = self.likelihood + term


def _slope(part: Tensor, u: Tensor) -> Tensor:
    if not part.requires_grad:  # e.g. a decoder that ignores z
        return torch.zeros_like(u)
    (slope,) = torch.autograd.grad(part.sum(), u, retain_graph=True, allow_unused=True, materialize_grads=True)
    return slope


def _support(support: Any) -> Any:
    """See through a mixture, whose support is that of its components, as `biject_to` does not."""
    if isinstance(support, constraints.independent):
        return constraints.independent(_support(support.base_constraint), support.reinterpreted_batch_ndims)
    return support.base_constraint if isinstance(support, constraints.MixtureSameFamilyConstraint) else support


def _is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
