# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A guide whose posterior of every datum can be moved by itself, within its family or beyond it by a flow."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to

from pyro_dgm.distributions.head import Head
from pyro_dgm.infer.local_parameters import Program, owners
from pyro_dgm.infer.particles import sample_sites
from pyro_dgm.transforms.make_flow import make_flow

CONTEXT = 64  # numbers from which a datum's flow is made: more than most flows of few dimensions have parameters


class LocalGuide:
    """A guide with an offset for every datum on the numbers that its posterior is made of.

    Where a `Head` reads raw numbers as a posterior, the offsets are on these: the family is all that the head can give.
    Otherwise they are on the parameters of the sites' distributions in unconstrained space; a flow's base is opened,
    the flow itself belongs to all data and stays. Offsets of 0 are the guide itself. Use it inside `frozen`, with the
    data it was made for.

    Args:
        guide: A guide with a data plate.
        x: Data of shape ``(B, *event)``.

    Attributes:
        leaves: The offsets (and whatever else may be moved), to give to an optimiser.

    Raises:
        ValueError: If the guide draws from a distribution whose parameters are not known.
    """

    def __init__(self, guide: Program, x: Tensor) -> None:
        self.guide = guide
        self.flows: dict[str, tuple[Any, Tensor]] = {}
        calls: list[Tensor] = []
        self.heads = [part for owner in owners(guide) for part in owner.modules() if isinstance(part, Head)]

        def note(raw: Tensor) -> Tensor:
            calls.append(raw)
            return raw

        with _before(self.heads, note):
            self.sites = sample_sites(poutine.trace(guide).get_trace(x))
        if not self.sites:
            raise ValueError("gap_split got a guide without a sample site: where nothing is latent there is no gap.")
        self.raw = [torch.zeros_like(raw, requires_grad=True) for raw in calls]
        self.shifts = {} if calls else {name: _zeros(name, site["fn"]) for name, site in self.sites.items()}

    @property
    def leaves(self) -> list[Tensor]:
        """All that may be moved: what every datum has of its own, then what a flow shares between them."""
        return [*self.own, *self.shared]

    @property
    def own(self) -> list[Tensor]:
        """What every datum has of its own, each of shape ``(B, ...)``."""
        shifts = [shift for of_site in self.shifts.values() for shift in of_site.values()]
        return [*self.raw, *shifts, *(context for _, context in self.flows.values())]

    @property
    def shared(self) -> list[Tensor]:
        """The weights of the flows, which turn a datum's context into its flow."""
        return [weight for flow, _ in self.flows.values() for weight in flow.parameters()]

    def add_flow(self, flow: Callable[..., Any]) -> None:
        """Let a flow of its own bend every datum's posterior further.

        Args:
            flow: Makes it from the size of a latent vector and ``context_dim``, e.g. ``partial(Planar, depth=4)``.

        Raises:
            ValueError: If a latent variable is no real vector, or the factory makes no flow that takes a context.
        """
        for name, site in self.sites.items():
            shape, value = site["fn"].event_shape, site["value"]
            if len(shape) != 1 or not value.is_floating_point():
                raise ValueError(
                    f"gap_split got a flow= and the guide's site {name!r} has event shape {tuple(shape)} and dtype "
                    f"{value.dtype}: a flow bends real vectors. Leave it out (flow=None)."
                )
            made = make_flow(self, flow, shape[0], context=CONTEXT)
            if made.context_dim is None:
                raise ValueError(f"gap_split got a flow= that makes {made}: it has to take a context_dim.")
            context = 0.1 * torch.randn(*site["fn"].batch_shape, CONTEXT).to(value)  # flows start much alike
            self.flows[name] = (made.to(value), context.requires_grad_())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the guide with every posterior moved."""
        waiting = iter(self.raw)
        with ExitStack() as stack:
            if self.raw:
                stack.enter_context(_before(self.heads, lambda raw: raw + next(waiting)))
            with _Moved(self):
                return self.guide(*args, **kwargs)

    def move(self, name: str, fn: Distribution) -> Distribution:
        """Move the posterior of one site."""
        if name in self.shifts:
            fn = _shifted(fn, dict(self.shifts[name]))
        if name in self.flows:
            flow, context = self.flows[name]
            batch = torch.broadcast_shapes(fn.batch_shape, context.shape[:-1])
            fn = dist.TransformedDistribution(fn.expand(batch), [flow.condition(context)])
        return fn


class _Moved(Messenger):
    """Hand every site of a guide to a `LocalGuide` before it is drawn from."""

    def __init__(self, local: LocalGuide) -> None:
        super().__init__()
        self.local = local

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.local.sites:
            msg["fn"] = self.local.move(msg["name"], msg["fn"])


@contextmanager
def _before(heads: list[Head], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change the raw numbers that heads read, call by call."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (change(args[0]), *args[1:])

    handles = [head.register_forward_pre_hook(hook) for head in heads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _names(fn: Distribution) -> list[str]:
    """Name the parameters that a distribution is made of, one name where there are several for the same."""
    names = list(fn.arg_constraints)
    for first, *others in (("logits", "probs"), ("scale_tril", "covariance_matrix", "precision_matrix")):
        names = [name for name in names if first not in names or name not in others]
    return names


def _zeros(site: str, fn: Distribution) -> dict[str, Tensor]:
    """Make the offsets of a site's distribution, for each of its parameters one of its shape."""
    if isinstance(fn, torch.distributions.Independent):
        return _zeros(site, fn.base_dist)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return _zeros(site, fn.base_dist)
    if not _names(fn):
        raise ValueError(
            f"gap_split got a guide whose site {site!r} is a {type(fn).__name__}, which names no parameters "
            f"(arg_constraints is empty), so its family is not known. Draw from a distribution with parameters, or "
            f"make it by a Head."
        )
    return {name: torch.zeros_like(_free(fn, name), requires_grad=True) for name in _names(fn)}


def _free(fn: Distribution, name: str) -> Tensor:
    """Give one parameter without its constraint."""
    value: Tensor = transform_to(fn.arg_constraints[name]).inv(getattr(fn, name))
    return value


def _shifted(fn: Distribution, shifts: dict[str, Tensor]) -> Distribution:
    """Make the member of a distribution's family that lies at an offset from it."""
    if isinstance(fn, torch.distributions.Independent):
        return dist.Independent(_shifted(fn.base_dist, shifts), fn.reinterpreted_batch_ndims)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return dist.TransformedDistribution(_shifted(fn.base_dist, shifts), fn.transforms)
    moved = {name: transform_to(fn.arg_constraints[name])(_free(fn, name) + shift) for name, shift in shifts.items()}
    return type(fn)(**moved)
