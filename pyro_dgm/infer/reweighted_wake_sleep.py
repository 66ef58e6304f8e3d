# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Reweighted wake-sleep: the model climbs IWAE, the guide learns what had weight, or what the model dreams."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import iwae
from pyro_dgm.infer.draws import DrawnWeights
from pyro_dgm.infer.gradients import Shares, normalized
from pyro_dgm.infer.local_parameters import Program
from pyro_dgm.infer.log_weights import LogWeights
from pyro_dgm.infer.particles import sample_sites


class ReweightedWakeSleep(Bound):
    r"""Teach the model by IWAE and the guide by a divergence the other way round, KL(p(z | x) || q(z | x)).

    .. math:: \text{wake:} \quad \sum_k \frac{w_k}{\sum_j w_j} \nabla_\phi \log q_\phi(z_k \mid x), \qquad
              \text{sleep:} \quad \nabla_\phi \log q_\phi(z \mid x'), \quad (z, x') \sim p_\theta

    No gradient goes through a sample, so discrete latent variables are like any other, without a score function and
    its variance, and more particles help model and guide alike. The value is IWAE's. Unlike
    `pyro.infer.ReweightedWakeSleep` weights are normalised for every datum, under subsampling too. A parameter that
    model and guide share gets both gradients.

    In the sleep phase the model dreams one datum for each of the batch, on which the guide is run in place of the
    data: the observed site must have the data's shape, and the guide may sample nothing but the model's variables.

    Args:
        num_particles: K. The wake phase of the guide has a bias that falls as 1 / K.
        insomnia: Share of the guide's gradient that is of the wake phase: 1 is wake-wake, 0 wake-sleep.
        **options: Those of `Bound`. ``gradient="dreg"`` writes the guide's wake phase as a path through the samples.

    Raises:
        ValueError: If ``insomnia`` is not between 0 and 1; at call, if the guide cannot be run on dreams,
            or a point mass of it depends on parameters.

    Source: Bornschein & Bengio (ICLR 2015), arXiv:1406.2751, section 2; Le, Kosiorek, Siddharth, Teh & Wood (UAI 2019),
    arXiv:1805.10469, section 3; Tucker et al. (ICLR 2019), arXiv:1810.04152, section 6.2.
    """

    split: ClassVar[bool] = True
    reweighted: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("total", "dreg")
    bound = staticmethod(iwae)

    def __init__(self, num_particles: int = 5, *, insomnia: int | float = 1.0, **options: Any) -> None:
        super().__init__(num_particles, **options)
        if not 0 <= insomnia <= 1:
            raise ValueError(f"ReweightedWakeSleep got insomnia={insomnia}: a number between 0 and 1 is needed.")
        self.insomnia = insomnia

    def log_weights(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> LogWeights:
        """Weigh the particles, and let the guide score the model's dreams."""
        weights = super().log_weights(model, guide, *args, **kwargs)
        if self.insomnia == 1 or not isinstance(weights, DrawnWeights):
            return weights
        return replace(weights, dreams=_dreams(model, guide, args, kwargs, weights))

    def _shares(self, log_w: Tensor) -> Shares:
        share = normalized(log_w)
        if self.gradient == "dreg":
            return Shares(path=self.insomnia * (share - share.square()))
        return Shares(score=self.insomnia * share)

    def _lesson(self, weights: DrawnWeights, log_w: Tensor) -> Tensor:
        lesson, dreams = super()._lesson(weights, log_w), weights.dreams
        return lesson if dreams is None else lesson + (1 - self.insomnia) * (dreams - dreams.detach())


def _dreams(
    model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], weights: LogWeights
) -> Tensor:
    """Let the model dream, and the guide score what was behind it: log q, shape ``(*batch)``."""
    with torch.no_grad():
        dream = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    again = poutine.trace(poutine.replay(guide, trace=dream)).get_trace(_dreamt_data(dream, args), *args[1:], **kwargs)
    sites = sample_sites(again)
    if unknown := sorted(sites.keys() - weights.sites.keys()):
        raise ValueError(
            f"The guide samples {unknown}, which the model does not know, so it cannot score a dream: use insomnia=1."
        )
    total: Tensor | float = 0.0
    for name, site in sites.items():
        log_q = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        total = total + weights.sites[name].reduce(scale_and_mask(log_q, 1.0, site["mask"]))[0]
    return torch.as_tensor(total)


def _dreamt_data(dream: poutine.Trace, args: tuple[Any, ...]) -> Tensor:
    """Put the dreamt data in the place of the real ones, where a plate subsamples at the places that it drew."""
    dreamt = [site for site in sample_sites(dream).values() if (site["infer"] or {}).get("was_observed")]
    data = args[0] if args else None
    if isinstance(data, Tensor) and len(dreamt) == 1:
        value = dreamt[0]["value"].to(data.dtype)
        if value.shape == data.shape:
            return value
        frames = [frame.name for frame in dreamt[0]["cond_indep_stack"] if frame.name in dream.nodes]
        if len(frames) == 1 and value.shape[1:] == data.shape[1:]:
            index = dream.nodes[frames[0]]["value"]
            return data.index_copy(0, index, value) if isinstance(index, Tensor) else data
    shapes = {site["name"]: tuple(site["value"].shape) for site in dreamt}
    raise ValueError(
        f"The sleep phase got a model that observes sites of shapes {shapes}, and a first argument "
        f"{tuple(data.shape) if isinstance(data, Tensor) else data!r}: it runs the guide on a dream in place of the "
        f"first argument, which needs one observed site of that shape. Use insomnia=1 for other programs."
    )
