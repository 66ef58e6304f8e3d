# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The KL term of each latent variable, sampled or in closed form, and what an ELBO with a control pays for them."""

from torch import Tensor

from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.log_weights import LogWeights


def kl_terms(weights: LogWeights, *, analytic: bool = False) -> dict[str, Tensor]:
    r"""List the KL term of each latent variable.

    .. math:: \log q(z_s \mid \cdot) - \log p(z_s \mid \cdot) \quad \text{or} \quad
              \mathrm{KL}\bigl(q(z_s \mid \cdot) \,\|\, p(z_s \mid \cdot)\bigr)

    Both have the same expectation, and in a hierarchy both are conditionals given the sampled parents. The closed
    form has no noise of z of its own, but costs the exact cancellation of log q and log p where q is the posterior.

    Args:
        weights: From `pyro_dgm.infer.log_weights`.
        analytic: Whether to take the closed form where `torch.distributions` has one registered. A site keeps its
            sampled term if it has none, is a point mass, has different masks in model and guide (or equal
            ones of two tensors), or if the guide samples a variable that comes earlier in the model only after it (its
            prior may then depend on it).

    Returns:
        Nats of shape ``(K, *batch)`` by site. An auxiliary variable of the guide has log q alone.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, appendix B.
    """
    found: dict[str, Tensor] = {}
    for name, log_q in weights.guide_terms.items():
        site = weights.sites.get(name)
        closed = site.closed_form() if analytic and site is not None else None
        if closed is None:
            found[name] = log_q - weights.model_terms[name] if name in weights.latent else log_q
        else:
            found[name] = closed
    return found


def kl_terms_by_dimension(weights: LogWeights, *, analytic: bool = False) -> dict[str, Tensor]:
    """List the KL terms of each latent variable's dimensions.

    Args:
        weights: From `pyro_dgm.infer.log_weights`.
        analytic: As for `kl_terms`.

    Returns:
        Nats of shape ``(K, *batch, *event)`` by site; summed over the event they are those of `kl_terms`.

    Raises:
        ValueError: If the dimensions of a variable are not independent in both prior and posterior.
    """
    require_priors(weights)
    found: dict[str, Tensor] = {}
    for name, site in weights.sites.items():
        terms = site.by_dimension(analytic=analytic)
        if terms is None:
            names = " and ".join(type(part["fn"]).__name__ for part in (site.posterior, site.prior))
            raise ValueError(
                f"The dimensions of {name!r} have no KL terms of their own: its posterior and prior are {names}, and "
                f"both must be .to_event() of a distribution over single numbers. A flow or a mixture scores all "
                f'dimensions together: use per="site".'
            )
        found[name] = terms
    return found


def require_priors(weights: LogWeights) -> None:
    """Refuse guides with auxiliary variables where a KL is wanted of each variable by itself."""
    auxiliary = sorted(weights.guide_terms.keys() - weights.latent)
    if auxiliary:
        raise ValueError(
            f"The guide's variables {auxiliary} have no prior in the model, so the KL of each variable by itself is "
            f'not known (automatic guides are made so): use per="all", which takes the sum.'
        )


def require_one_scale(weights: LogWeights, control: KLControl) -> None:
    """Refuse weights with different scales inside their terms, for which a threshold in nats has no meaning."""
    if weights.scale is None:
        raise ValueError(
            f"{type(control).__name__} got sites that do not share one scale, of {sorted(weights.guide_terms)}: its "
            f"nats are of unscaled terms. Scale all sites alike, and weigh the KL by beta= instead of poutine.scale."
        )


def data_mean(term: Tensor, weights: LogWeights) -> Tensor:
    """Average a term over particles and data, each datum with its scale: ``(K, *batch, *rest)`` into ``(*rest)``."""
    batch = next(iter(weights.guide_terms.values())).shape[1:]
    mean = term.mean(0)
    if not batch:
        return mean
    scale = weights.scale
    dims = list(range(len(batch)))
    if not isinstance(scale, Tensor) or scale.dim() == 0:
        return mean.mean(dims)
    share = (scale / scale.expand(batch).sum()).expand(batch)
    return (share.reshape(*batch, *[1] * (mean.dim() - len(batch))) * mean).sum(dims)


def weigh_kl(
    weights: LogWeights, *, beta: Tensor | int | float, control: KLControl | None, analytic: bool | None
) -> Tensor:
    """Add up the terms to log-weights, the KL ones at the cost that a control says.

    Args:
        weights: What was weighed.
        beta: Weight of that cost.
        control: Says the cost; ``None``: the KL itself.
        analytic: Whether terms are closed forms where there are any; ``None``: if the control is not linear.

    Returns:
        Nats, shape ``(K, *batch)``. Without a control and closed forms it is ``weights.weighted(beta)``, to the bit.
    """
    if control is not None and control.idle:
        control = None
    if analytic is None:
        analytic = control is not None and not control.linear
    if not weights.guide_terms or (control is None and not analytic):
        return weights.weighted(beta)
    if control is None:
        cost = sum_terms(kl_terms(weights, analytic=True))
    else:
        cost = control.cost(weights, analytic=analytic)
    observed = {name: term for name, term in weights.model_terms.items() if name not in weights.latent}
    return sum_terms(observed) - beta * cost if observed else -beta * cost


def sum_terms(terms: dict[str, Tensor]) -> Tensor:
    """Add up the terms of all sites."""
    first, *rest = terms.values()
    for term in rest:
        first = first + term
    return first
