# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Leave missing entries out of a model's observation, so that any bound is one on what was observed of each datum."""

import functools
from typing import Any

import torch
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_dgm.infer.local_parameters import Program


def observed(program: Program, mask: Tensor | None = None, *, site: str | None = None) -> Program:
    r"""Let a model observe some entries of each datum only.

    .. math:: p(x_o, z) = p(z) \prod_{i \in o} p(x_i \mid z)

    With it every bound and estimate is one of log p(x_o). Missing entries of the observed value are replaced by zeros,
    so they may be NaN; the guide is not touched, and has to read the data as they are (zeros in place of NaN, with the
    mask as a further input if it is to know it).

    Args:
        program: A model. What it returns is a program too.
        mask: True where observed, of shape ``(B, *event)``, or one that broadcasts to it. Under a plate that subsamples
            N data it is that of all N, and is subsampled alike. ``None``: missing is what is NaN, which goes with the
            data when an estimate takes them in batches.
        site: Name of the observed site; may be left out if there is one only.

    Returns:
        The program.

    Raises:
        ValueError: At call, if the entries at that site are not independent given z, there are several observed sites
            and no name, or none.

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
        self.index: Tensor | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        subsampled = self.mask is not None and type(msg["fn"]).__name__ == "_Subsample"
        if subsampled and len(msg["value"]) < len(self.mask):  # type: ignore[arg-type]
            self.index = msg["value"]

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] or self.site not in (None, msg["name"]) or type(msg["fn"]).__name__ == "_Subsample":
            return
        if self.seen is not None:
            raise ValueError(
                f"observed(program, mask) met the observed sites {self.seen!r} and {msg['name']!r}: say which is meant "
                f"by site={msg['name']!r}."
            )
        self.seen = msg["name"]
        mask = ~msg["value"].isnan() if self.mask is None else self.mask
        mask = mask if self.index is None or len(mask) == 1 else mask[self.index]
        msg["fn"] = _masked(msg["fn"], mask, msg["name"])
        msg["value"] = torch.where(mask, msg["value"], torch.zeros_like(msg["value"]))


def _masked(fn: Any, mask: Tensor, name: str) -> Any:
    """Mask each element of an event: open what makes one event of many, and close it again."""
    events = len(fn.event_shape)
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    if fn.event_shape:
        raise ValueError(
            f"The entries at {name!r} are not independent given what was sampled before, by {type(fn).__name__}, so "
            f"single ones cannot be left out. Observe a distribution over numbers with .to_event({events})."
        )
    return Independent(fn.mask(mask), events) if events else fn.mask(mask)
