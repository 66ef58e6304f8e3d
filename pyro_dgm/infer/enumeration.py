# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sum a Pyro program's discrete variables out, and weigh every term of its log-density by their exact posterior."""

from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Tensor

from pyro_dgm.infer.local_parameters import Program, local_parameters

Values = Mapping[str, Tensor]


class _Fixed(Messenger):
    """Gives parameters and variables their values, plates their indices, and marks the other variables as summed."""

    def __init__(self, values: Values, indices: Values) -> None:
        super().__init__()
        self.values, self.indices = values, indices

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if site_is_subsample(msg):
            if name in self.indices:
                msg["value"], msg["done"] = self.indices[name], True
        elif name in self.values:
            msg["value"], msg["is_observed"] = self.values[name], True
        elif not msg["is_observed"]:
            msg["infer"]["enumerate"] = "parallel"


@dataclass
class EnumeratedTrace:
    """A run of a program in which every discrete latent variable has all its values at once.

    Attributes:
        trace: Pyro's trace, with packed log-densities.
        indices: What the subsampling plates drew, by name.
    """

    trace: poutine.Trace
    indices: dict[str, Tensor]

    @property
    def sites(self) -> dict[str, Any]:
        """The sites that have a density."""
        nodes: dict[str, Any] = dict(self.trace.nodes)
        sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
        return {name: site for name, site in sites.items() if not site["infer"].get("_deterministic")}


def enumerate_program(
    model: Program, args: tuple[Any, ...], kwargs: dict[str, Any], *, nesting: int, values: Values, indices: Values
) -> EnumeratedTrace:
    """Run a program once with all values of its discrete latent variables.

    Args:
        model: The program.
        args: Its arguments.
        kwargs: Its arguments by keyword.
        nesting: How many dimensions its plates take.
        values: Values of parameters and of continuous variables, by name.
        indices: What subsampling plates shall pick, by name; others draw.

    Returns:
        The trace, with log-densities.
    """
    fixed = _Fixed(values, indices)
    with local_parameters(model), torch.autograd.set_grad_enabled(torch.is_grad_enabled()):
        with poutine.trace() as tracer, poutine.enum(first_available_dim=-1 - nesting), fixed:
            model(*args, **kwargs)
    whole = tracer.trace
    nodes: dict[str, Any] = dict(whole.nodes)
    drawn = {
        name: site["value"]
        for name, site in nodes.items()
        if site_is_subsample(site) and (site["fn"].subsample_size or site["fn"].size) < site["fn"].size
    }
    trace = prune_subsample_sites(whole)
    trace.compute_log_prob()
    trace.pack_tensors()
    return EnumeratedTrace(trace, drawn)


def expected_log_joint(found: EnumeratedTrace, weights: Values) -> tuple[Tensor, Tensor]:
    r"""Sum every site's log-density with frozen weights: Q, the expectation under a posterior of earlier parameters.

    .. math:: Q(\theta) = \sum_i \langle W_i, \log p_i(\theta) \rangle = E_q[\log p(x, z \mid \theta)]

    Args:
        found: The program at the new parameters, with its graph.
        weights: What `posterior_weights` gave; sites without weight are left out.

    Returns:
        Q, 0-dim, and the sum of absolute terms, by which its rounding is measured.
    """
    total, size = [], []
    for name, site in found.sites.items():
        if name in weights:
            weight, log_p = weights[name], site["packed"]["unscaled_log_prob"]
            term = weight * torch.where(weight != 0, log_p, log_p.new_zeros(()))
            total.append(term.sum())
            size.append(term.detach().abs().sum())
    return torch.stack(total).sum(), torch.stack(size).sum()


def posterior_weights(
    found: EnumeratedTrace, plates: Container[str]
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    r"""E-step: the posterior probability of every entry of every site's table of log-densities.

    .. math:: W_i = \partial \log p(x) / \partial \log p_i

    The sum over all discrete variables is a polynomial in the sites' densities, so its derivative by the logarithm of
    one of them is the posterior probability that this one is in use. Plates and `pyro.markov` chains are contracted as
    `pyro.infer.TraceEnum_ELBO` does it: forward-backward is the derivative of forward.

    Args:
        found: The program at the present parameters.
        plates: Names of the plates over data.

    Returns:
        Weights by site, in the packed layout of its log-density, scales and masks included; the log-likelihood of what
        depends on enumerated variables or lies in those plates, 0-dim; and the log-densities of the other sites.

    Raises:
        ValueError: If sites that share an enumerated variable do not share one scale.

    Source: Darwiche (JACM 2003), section 4; Obermeyer et al. (ICML 2019), arXiv:1902.03210, section 3.

    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Bernoulli(0.5))
    ...         pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)
    >>> trace = enumerate_program(model, (torch.tensor([1.0, 3.0]),), {}, nesting=1, values={}, indices={})
    >>> weights, _, _ = posterior_weights(trace, {"data"})
    >>> weights["z"]
    tensor([[0.5000, 0.0180],
            [0.5000, 0.9820]])
    """
    leaves: dict[str, Tensor] = {}
    with torch.enable_grad():
        for name, site in found.sites.items():
            table = site["packed"]["unscaled_log_prob"]
            leaves[name] = table.detach().clone().requires_grad_()
            leaves[name]._pyro_dims = table._pyro_dims  # type: ignore[attr-defined]
        local, plain = _total(found, leaves, plates)
        total = torch.stack([local, *plain.values()]).sum()
        found_weights = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    weights = {name: w for name, w in zip(leaves, found_weights, strict=True) if w is not None}
    for name in weights.keys() & {n for n, site in found.sites.items() if "_enumerate_symbol" in site["infer"]}:
        weights[name] = _without_idle(found.sites[name], leaves[name].detach(), weights[name])
    return weights, local.detach(), {name: term.detach() for name, term in plain.items()}


def _total(found: EnumeratedTrace, tables: Values, plates: Container[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum log-densities over data and log-sum-exp them over enumerated variables; sites of no datum come apart."""
    sites, symbols = found.sites, found.trace.plate_to_symbol
    summed = {s["infer"]["_enumerate_symbol"] for s in sites.values() if "_enumerate_symbol" in s["infer"]}
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    scales, local, plain = {}, [], {}
    for name, site in sites.items():
        table, mask, frames = tables[name], site["packed"]["mask"], site["cond_indep_stack"]
        own = "_enumerate_symbol" in site["infer"]
        if own or not summed.isdisjoint(table._pyro_dims):  # type: ignore[attr-defined]
            inside = frozenset(symbols[frame.name] for frame in frames if frame.vectorized)
            factors.setdefault(inside, []).append(table if own else packed.scale_and_mask(table, mask=mask))
            scales[name] = site["scale"]
        else:
            term = packed.scale_and_mask(table, scale=site["scale"], mask=mask).sum()
            if any(frame.name in plates for frame in frames):
                local.append(term)
            else:
                plain[name] = term
    if factors:
        local.append(_contract(factors, summed, _sizes(found)) * _common(scales))
    zero = torch.zeros_like(next(iter(plain.values()))) if plain and not local else None
    return (torch.stack(local).sum() if zero is None else zero), plain


def _contract(factors: OrderedDict[frozenset[str], list[Tensor]], summed: set[str], sizes: dict[str, int]) -> Tensor:
    for terms in factors.values():
        for term in terms:
            sizes.update(zip(term._pyro_dims, term.shape, strict=True))  # type: ignore[attr-defined]
    tree = contract_tensor_tree(factors, summed, ring=LogRing(dim_to_size=sizes))
    parts = []
    for plates, terms in tree.items():
        for term in terms:
            missing = [sizes[dim] for dim in plates if dim not in term._pyro_dims]  # of size 1, or alike for all
            parts.append(term.sum() * torch.Size(missing).numel())
    return torch.stack(parts).sum()


def _sizes(found: EnumeratedTrace) -> dict[str, int]:
    frames = [frame for site in found.sites.values() for frame in site["cond_indep_stack"] if frame.vectorized]
    return {found.trace.plate_to_symbol[frame.name]: frame.size for frame in frames}


def _common(scales: dict[str, Any]) -> Any:
    """Give the scale that sites share, for it multiplies after the sum over their variables."""
    if any(float(scale) != float(next(iter(scales.values()))) for scale in scales.values()):
        raise ValueError(
            f"Enumeration got sites that do not share one scale: { {n: float(s) for n, s in scales.items()} }. A scale "
            f"multiplies after the sum over discrete variables: scale or subsample all these sites alike."
        )
    return next(iter(scales.values()))


def _without_idle(site: Any, table: Tensor, weight: Tensor) -> Tensor:
    """Take the weight off masked variables that nothing observed depends on, such as labels that are known.

    Their posterior is their prior, so they teach nothing; as hidden data they would only slow EM down.
    """
    mask, dims = site["packed"]["mask"], site["packed"]["unscaled_log_prob"]._pyro_dims
    if not isinstance(mask, Tensor) or not set(mask._pyro_dims) <= set(dims):  # type: ignore[attr-defined]
        return weight
    own = mask._pyro_dims  # type: ignore[attr-defined]
    order = sorted(own, key=dims.index)
    mask = mask.permute([own.index(dim) for dim in order])
    mask = mask.reshape([size if dim in order else 1 for dim, size in zip(dims, table.shape, strict=True)])
    axis = dims.index(site["infer"]["_enumerate_symbol"])
    whole = weight.sum(axis, keepdim=True)
    slack = 1000 * torch.finfo(weight.dtype).eps
    prior = ((weight - whole * table.exp()).abs() <= slack * whole).all(axis, keepdim=True)
    return torch.where(prior & ~mask, weight.new_zeros(()), weight)
