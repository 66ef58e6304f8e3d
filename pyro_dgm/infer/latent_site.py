# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A latent variable with the two distributions that model and guide give it, from which its KL term can be had."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_dgm.infer.reduction import Reduction
from pyro_dgm.nn.without_autocast import without_autocast


@dataclass(frozen=True, eq=False)
class LatentSite:
    r"""One latent variable's posterior q(z | .) and prior p(z | .), given what was sampled before it.

    Its term log q(z | .) - log p(z | .) may be replaced by KL(q(z | .) || p(z | .)) if nothing that either
    distribution depends on was sampled after z: then the two have the same expectation.

    Attributes:
        posterior: The guide's site.
        prior: The model's site.
        reduce: Sums over what belongs to one particle and datum.
        ordered: Whether the guide samples all latent variables that come before this one in the model before it too.
        scaled: Whether the sites' scales are inside the terms.
        held: Whether log q at the sample is a number, without a gradient; a closed form keeps its own.
    """

    posterior: Any
    prior: Any
    reduce: Reduction
    ordered: bool
    scaled: bool = False
    held: bool = False

    @property
    def reparameterized(self) -> bool:
        """Whether the sample carries a gradient."""
        return bool(self.posterior["fn"].has_rsample)

    def closed_form(self, *, prior_share: float | None = None) -> Tensor | None:
        """Compute KL(q || p).

        Args:
            prior_share: If given, the share of the gradient that goes to the prior; the rest is the posterior's.

        Returns:
            Nats, shape ``(K, *batch)``, or ``None`` if there is no closed form or it would not be this site's term.
        """
        kl = self._divergence(self.posterior["fn"], self.prior["fn"], prior_share)
        return None if kl is None else self._reduced(kl, self.prior)

    def by_dimension(self, *, analytic: bool) -> Tensor | None:
        """Compute the term of each latent dimension.

        Args:
            analytic: Whether to take the closed form if there is one.

        Returns:
            Nats, shape ``(K, *batch, *event)``, or ``None`` if the dimensions are not independent in both.
        """
        q, p = elementwise(self.posterior["fn"]), elementwise(self.prior["fn"])
        if q is None or p is None:
            return None
        size = len(self.posterior["fn"].event_shape)
        kl = self._divergence(q, p) if analytic else None
        if kl is not None:
            return self._reduced(kl, self.prior, event_dim=size)
        value = self.posterior["value"]
        log_q = self._reduced(q.log_prob(value), self.posterior, event_dim=size)
        log_q = log_q.detach() if self.held else log_q
        return log_q - self._reduced(p.log_prob(value), self.prior, event_dim=size)

    def balanced(self, log_q: Tensor, log_p: Tensor, *, prior_share: float) -> Tensor:
        """Give log q - log p at the sample, its gradient shared out between prior and posterior.

        The gradient of log p(z) goes to the prior's parameters with weight ``prior_share``, and through z to the
        posterior with the rest. One more log p at a detached z tells the two apart, whatever distribution it is.

        Args:
            log_q: The guide's term, shape ``(K, *batch)``.
            log_p: The model's term, likewise.
            prior_share: Between 0 and 1.
        """
        other = 1 - prior_share
        log_q = other * log_q + prior_share * log_q.detach()
        log_p = prior_share * log_p + other * log_p.detach()
        value = self.posterior["value"]
        if not (torch.is_grad_enabled() and value.requires_grad) or prior_share == 0.5:
            return log_q - log_p
        leaf = value.detach().requires_grad_()
        with without_autocast(leaf):
            (slope,) = torch.autograd.grad(self.prior["fn"].log_prob(leaf).sum(), leaf)
        size = len(self.prior["fn"].event_shape)
        path = (slope * (value - value.detach())).sum(list(range(-size, 0)) if size else [])
        path = path if size else slope * (value - value.detach())
        return log_q - log_p - (other - prior_share) * self._reduced(path, self.prior)

    def _divergence(self, q: Distribution, p: Distribution, prior_share: float | None = None) -> Tensor | None:
        if not self.ordered or self.posterior["is_observed"] or _point(q) or not self._measured_alike():
            return None
        if not _masked_alike(q, p):
            return None
        try:
            if prior_share is None:
                kl = kl_divergence(q, p)
            else:
                still_q, still_p = _detached(q), _detached(p)
                if still_q is None or still_p is None:
                    return None
                kl = prior_share * kl_divergence(still_q, p) + (1 - prior_share) * kl_divergence(q, still_p)
        except NotImplementedError:  # how torch says that none is registered
            return None
        expected = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        return kl if isinstance(kl, Tensor) and kl.shape == expected else None  # Pyro's of mask=False is a number

    def _measured_alike(self) -> bool:
        """Whether both sites have one mask and, where it counts, one scale."""
        keys = ("mask", "scale") if self.scaled else ("mask",)
        pairs = [(self.posterior[key], self.prior[key]) for key in keys]
        return all(_same(a, b) for a, b in pairs)

    def _reduced(self, term: Tensor, site: Any, *, event_dim: int = 0) -> Tensor:
        scale, mask = (site["scale"] if self.scaled else 1.0), site["mask"]
        if event_dim:
            scale, mask = (_with_event(part, event_dim) for part in (scale, mask))
        return self.reduce(scale_and_mask(term, scale, mask), event_dim=event_dim)


def _with_event(part: Any, event_dim: int) -> Any:
    return part[(..., *[None] * event_dim)] if isinstance(part, Tensor) else part


def elementwise(fn: Any) -> Any:
    """Open a distribution whose dimensions are independent.

    Args:
        fn: The distribution of a site, of batch shape ``(*batch)`` and event shape ``(*event)``.

    Returns:
        The distribution of single dimensions, of batch shape ``(*batch, *event)``; ``None`` if the dimensions are not
        independent or nothing says that they are (a full covariance, a flow, a mixture).

    >>> import pyro.distributions as dist
    >>> elementwise(dist.Normal(torch.zeros(5, 2), 1.0).to_event(1)).batch_shape
    torch.Size([5, 2])
    >>> elementwise(dist.MultivariateNormal(torch.zeros(2), torch.eye(2))) is None
    True
    """
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return None if fn.event_shape else fn


def _point(fn: Any) -> bool:
    """Whether it is a point mass, the registered KL of which forgets its log-density."""
    while isinstance(fn, Independent | MaskedDistribution):
        fn = fn.base_dist
    return isinstance(fn, Delta)


def _masked_alike(q: Any, p: Any) -> bool:
    """Whether two distributions have one mask inside; the registered KL would take what both masks leave."""
    ours, theirs = _masks(q), _masks(p)
    return len(ours) == len(theirs) and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))


def _masks(fn: Any) -> list[Any]:
    """List the masks of a distribution, each with the number of event dimensions that it is inside of."""
    found, inside = [], 0
    while isinstance(fn, Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            found += [fn._mask, inside]
        else:
            inside += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether two masks or scales are one tensor, as plates expand it, or equal numbers; no tensor is read."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or _view(a) == _view(b)
    return a is b or not (isinstance(a, Tensor) or isinstance(b, Tensor)) and a == b


def _view(part: Tensor) -> tuple[int, ...]:
    """Say which numbers of which tensor it shows."""
    return id(part if part._base is None else part._base), part.storage_offset(), *part.shape, *part.stride()


def _detached(fn: Any) -> Any:
    """Copy a distribution with its parameters detached; ``None`` if they may hide, as in a transform."""
    still = copy.copy(fn)
    for name, part in vars(fn).items():
        if isinstance(part, Distribution):
            part = _detached(part)
            if part is None:
                return None
        elif isinstance(part, Tensor):
            part = part.detach()
        elif name == "transforms":
            return None
        still.__dict__[name] = part
    return still
