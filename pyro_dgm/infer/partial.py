# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Leave missing entries out of a model's observation, so that any bound is one on what was observed of each datum."""

import functools
from typing import Any

import torch
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from pyro_dgm.infer.local_parameters import Program


def observed(program: Program, mask: Tensor | None = None, *, site: str | None = None) -> Program:
    r"""Let a model observe some entries of each datum only.

    .. math:: p(x_o, z) = p(z) \prod_{i \in o} p(x_i \mid z)

    With it every bound and estimate is one of log p(x_o). Missing entries of the observed value may be anything, NaN
    too: they are replaced by a number that the likelihood can score (0, or where that is outside of its support, one
    inside), which counts for nothing. The guide is not touched, and has to read the data as they are (zeros in
    place of NaN, with the mask as a further input if it is to know it).

    Args:
        program: A model. What it returns is a program too.
        mask: True where observed, of shape ``(B, *event)``, or one that broadcasts to it; its rows are those of the
            data that the program is called with, so it fits the whole and no batch of it. Only where the site's own
            plate draws a subsample of N data, and the mask has N rows, does it take the rows that the plate drew.
            ``None``: missing is what is NaN, which goes with the data when training or an estimate takes them in
            batches.
        site: Name of the observed site; may be left out if there is one only.

    Returns:
        The program.

    Raises:
        ValueError: At call, if the entries at that site are not independent given z, the mask has other rows than the
            observed value, there are several observed sites and no name, or none.

    Source: Little & Rubin, Statistical Analysis with Missing Data (2002), section 6.2 (ignorable missingness); Mattei &
    Frellsen (ICML 2019), arXiv:1812.02633, eq. 4.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z.unsqueeze(-1), torch.ones(2)).to_event(1), obs=x)
        >>> x = torch.tensor([[0.5, math.nan]])
        >>> trace = pyro.poutine.trace(observed(model)).get_trace(x)
        >>> trace.compute_log_prob()
        >>> bool(trace.nodes["x"]["log_prob_sum"].isfinite())
        True
    """
    return functools.partial(_run, program, mask, site)  # not a closure, so that a module's parameters are found


def _run(program: Program, mask: Tensor | None, site: str | None, *args: Any, **kwargs: Any) -> Any:
    handler = _Observed(mask, site)
    with handler:
        result = program(*args, **kwargs)
    if handler.seen is None and any(isinstance(arg, Tensor) for arg in args):
        raise ValueError(f"observed(program, mask) met no observed site{'' if site is None else f' {site!r}'}.")
    return result


class _Observed(Messenger):
    """Masks the elements of one observed site."""

    def __init__(self, mask: Tensor | None, site: str | None) -> None:
        super().__init__()
        self.mask, self.site = mask, site
        self.seen: str | None = None
        self.drawn: dict[str, tuple[int, Tensor]] = {}  # by plate: how many data there are, and which of them it drew

    def _pyro_post_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if type(fn).__name__ == "_Subsample" and fn.subsample_size is not None and fn.subsample_size < fn.size:
            self.drawn[msg["name"]] = fn.size, msg["value"]

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or self.site not in (None, msg["name"]) or type(msg["fn"]).__name__ == "_Subsample":
            return
        if self.seen is not None:
            raise ValueError(
                f"observed(program, mask) met the observed sites {self.seen!r} and {msg['name']!r}: say which is meant "
                f"by site={msg['name']!r}."
            )
        self.seen = msg["name"]
        numbers = _numbers(msg["fn"], msg["name"])
        mask = ~msg["value"].isnan() if self.mask is None else self._rows(self.mask, msg)
        masked, events = numbers.mask(mask), len(msg["fn"].event_shape)
        msg["fn"] = Independent(masked, events) if events else masked
        msg["value"] = torch.where(mask, msg["value"], _possible(numbers, msg["value"]))

    def _rows(self, mask: Tensor, msg: Any) -> Tensor:
        """Take the rows of the mask that the site's plates drew, and see that it fits the observed value."""
        events = len(msg["fn"].event_shape)
        for frame in msg["cond_indep_stack"]:
            size, index = self.drawn.get(frame.name, (None, None))
            place = (frame.dim or 0) - events  # of that plate in the value, from the right
            if index is not None and frame.dim is not None and mask.dim() >= -place and mask.shape[place] == size:
                mask = mask.index_select(place, index.to(mask.device))
        shape = torch.broadcast_shapes(msg["value"].shape, msg["fn"].shape())
        if mask.dim() > len(shape) or any(
            have not in (1, need) for have, need in zip(mask.shape[::-1], shape[::-1], strict=False)
        ):
            raise ValueError(
                f"observed(program, mask) got a mask of shape {tuple(mask.shape)} for the values of {msg['name']!r}, "
                f"of shape {tuple(shape)}: one row for each is needed, or one for all. Where data are taken in batches "
                f"a mask cannot follow: mark missing entries by NaN in the data, and leave mask=None."
            )
        return mask


def _numbers(fn: Any, name: str) -> Any:
    """Open what makes one event of many numbers."""
    events = len(fn.event_shape)
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    if fn.event_shape:
        raise ValueError(
            f"The entries at {name!r} are not independent given what was sampled before, by {type(fn).__name__}, so "
            f"single ones cannot be left out. Observe a distribution over numbers with .to_event({events})."
        )
    return fn


def _possible(numbers: Any, value: Tensor) -> Tensor:
    """Give numbers inside the support, away from its edge: at a missing entry infinity times no weight would be NaN."""
    zeros = torch.zeros_like(value)
    try:
        support = numbers.support
        if support.is_discrete:
            return zeros + torch.as_tensor(getattr(support, "lower_bound", 0)).to(zeros).detach()
        return transform_to(support)(zeros).detach().to(value.dtype)
    except NotImplementedError:  # a distribution that does not say its support
        return zeros
