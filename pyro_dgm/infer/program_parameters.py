# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Find what of a Pyro program is to be estimated by points, and what is to be summed out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import constraints, transform_to, transforms

from pyro_dgm.infer.data_plates import data_plates
from pyro_dgm.infer.local_parameters import Program, local_parameters, owners

_KEPT: dict[type, str] = {
    transforms.ExpTransform: "log",
    transforms.SigmoidTransform: "logit",
    transforms.SoftmaxTransform: "softmax",
    transforms.LowerCholeskyTransform: "cholesky",
    transforms.PositiveDefiniteTransform: "matrix",
}
_DEFINITE = constraints.positive_definite


@dataclass
class ProgramParameter:
    """Something to be estimated: a parameter, or a global variable with a prior.

    Attributes:
        name: Its name in the program.
        leaf: Its unconstrained numbers, changed in place.
        transform: From them to its value; None if the program reads the leaf itself.
        kept: What the leaf is: real, log, logit, softmax, cholesky, matrix or other.
        owned: Whether the leaf is a parameter of the program's modules, which save it.
        form: The closed form that worked last.
        misses: How often none did.
    """

    name: str
    leaf: Tensor
    transform: Any
    kept: str
    owned: bool
    form: str | None = None
    misses: int = 0

    @property
    def by_value(self) -> bool:
        """Whether closed forms look at the value instead of the leaf."""
        return self.kept in ("cholesky", "matrix")

    def value(self) -> Tensor:
        """Give its value, with a graph to the leaf."""
        return self.leaf if self.transform is None else self.transform(self.leaf)

    @torch.no_grad()
    def move(self, new: Tensor) -> None:
        """Change the leaf in place, or the value, if closed forms look at that."""
        self.place(self.transform.inv(new) if self.by_value else new)

    def place(self, leaf: Tensor) -> None:
        """Change the leaf in place, unseen by graphs: they hold again once it is back."""
        self.leaf.data.copy_(leaf)


@dataclass
class ProgramShape:
    """What one run of a program tells.

    Attributes:
        nesting: How many dimensions its plates take.
        plates: Names of the plates over data; see `data_plates`.
        latent: Names of the discrete variables, which are summed out.
        shared: Those of them that lie outside every plate over data.
        parameters: What is to be estimated.
    """

    nesting: int
    plates: frozenset[str]
    latent: list[str]
    shared: list[str]
    parameters: list[ProgramParameter]

    def values(self) -> dict[str, Tensor]:
        """Give the values of what the program does not read from its leaf, with their graphs."""
        return {p.name: p.value() for p in self.parameters if p.transform is not None}


def read_program(
    model: Program, args: tuple[Any, ...], kwargs: dict[str, Any], *, start: Mapping[str, Tensor]
) -> ProgramShape:
    """Run a program once, and tell what is to be estimated and what to be summed out.

    Args:
        model: The program.
        args: Its arguments.
        kwargs: Its arguments by keyword.
        start: Values to start from, by the names of parameters and continuous variables.

    Returns:
        The program's plates, discrete variables and parameters, at their start.

    Raises:
        ValueError: If a variable is neither discrete and finite nor continuous and global, if nothing is to be
            estimated, or if ``start`` has an unknown name or a wrong shape.
    """
    with local_parameters(model), torch.no_grad(), poutine.trace() as tracer:
        model(*args, **kwargs)
    nodes: dict[str, Any] = dict(prune_subsample_sites(tracer.trace).nodes)
    sites = {n: s for n, s in nodes.items() if s["type"] == "sample" and not s["infer"].get("_deterministic")}
    plates = data_plates(sites)
    frames = [frame for site in sites.values() for frame in site["cond_indep_stack"] if frame.vectorized]
    latent, parameters = [], _parameters(model, nodes)
    for name, site in sites.items():
        if site["is_observed"]:
            continue
        if getattr(site["fn"], "has_enumerate_support", False):
            latent.append(name)
        else:
            _require_global(name, site, plates)
            parameters.append(_estimate(name, site))
    shared = [name for name in latent if plates.isdisjoint(frame.name for frame in sites[name]["cond_indep_stack"])]
    if not parameters:
        raise ValueError(
            "EnumeratedEM found nothing to estimate: the program has no parameter (pyro.param, nn.Parameter) and no "
            "continuous global variable."
        )
    _begin(parameters, start)
    nesting = max((-frame.dim for frame in frames), default=0)
    return ProgramShape(nesting, plates, latent, shared, parameters)


def _require_global(name: str, site: Any, plates: frozenset[str]) -> None:
    support = site["fn"].support
    inside = sorted(plates & {frame.name for frame in site["cond_indep_stack"]})
    chained = bool(site["infer"].get("_markov_scope"))
    if not support.is_discrete and not inside and not chained:
        return
    kind = "discrete, of infinitely many values" if support.is_discrete else "continuous"
    where = f", inside the plates {inside} over data" if inside else ", inside a pyro.markov chain" if chained else ""
    raise ValueError(
        f"EnumeratedEM got the latent variable {name!r} ({type(site['fn']).__name__}), which is {kind}{where}: it "
        f"cannot be summed out. Use ELBO or ReweightedWakeSleep with a guide, CoordinateAscent if the model is "
        f"conditionally conjugate, or a distribution of finitely many values."
    )


def _parameters(model: Program, nodes: Mapping[str, Any]) -> list[ProgramParameter]:
    modules = owners(model)
    own = {id(parameter): name for module in modules for name, parameter in module.named_parameters()}
    leaves = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    found: dict[int, ProgramParameter] = {}
    for name, site in nodes.items():
        if site["type"] != "param":
            continue
        value = site["value"]
        leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
        transform, kept = _link(site["kwargs"].get("constraint", constraints.real))
        transform = None if kept == "real" else transform
        found.setdefault(id(leaf), ProgramParameter(name, leaf, transform, kept, id(leaf) in own))
    for key in own.keys() - found.keys():
        found[key] = ProgramParameter(own[key], leaves[key], None, "real", owned=True)
    return sorted((p for p in found.values() if p.leaf.requires_grad), key=lambda p: p.name)


def _estimate(name: str, site: Any) -> ProgramParameter:
    transform, kept = _link(site["fn"].support)
    with torch.no_grad():
        leaf = nn.Parameter(transform.inv(site["value"]).clone())
    return ProgramParameter(name, leaf, transform, kept, owned=False)


def _link(constraint: Any) -> tuple[Any, str]:
    """Give the map from unconstrained numbers, and what these are."""
    transform = transform_to(constraint)
    parts = _parts(transform)
    if not parts:
        return transform, "real"
    if isinstance(parts[0], transforms.LowerCholeskyTransform) and isinstance(parts[-1].codomain, type(_DEFINITE)):
        return transform, "matrix"
    return transform, _KEPT.get(type(parts[0]), "other") if len(parts) == 1 else "other"


def _parts(transform: Any) -> list[Any]:
    """List what a transform is made of, without what changes nothing."""
    if isinstance(transform, transforms.IndependentTransform):
        return _parts(transform.base_transform)
    if isinstance(transform, transforms.ComposeTransform):
        return [part for inner in transform.parts for part in _parts(inner)]
    if isinstance(transform, transforms.AffineTransform) and isinstance(transform.loc, int | float):
        return [] if (transform.loc, transform.scale) == (0, 1) else [transform]
    return [transform]


def _begin(parameters: list[ProgramParameter], start: Mapping[str, Tensor]) -> None:
    known = {parameter.name: parameter for parameter in parameters}
    if unknown := sorted(start.keys() - known.keys()):
        raise ValueError(f"EnumeratedEM got a start for {unknown}: it estimates {sorted(known)}.")
    for name, value in start.items():
        parameter = known[name]
        if value.shape != parameter.value().shape:
            raise ValueError(
                f"EnumeratedEM got a start for {name!r} of shape {tuple(value.shape)}: it must have the shape "
                f"{tuple(parameter.value().shape)}."
            )
        with torch.no_grad():
            parameter.leaf.copy_(value if parameter.transform is None else parameter.transform.inv(value))
