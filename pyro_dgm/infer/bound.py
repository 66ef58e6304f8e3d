# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of all bounds: a Pyro ELBO whose loss is one pure function of unscaled, per-datum log-weights."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pyro
import torch
from pyro import poutine
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_dgm.infer.local_parameters import Program, local_parameters, owners, without_statements
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.particles import particle_traces


class Bound(pyro.infer.ELBO, ABC):
    r"""Estimate a lower bound on log p(x) and its gradient, for any model and guide.

    .. math:: \text{loss} = -\sum_b s_b \, f(\log w_{1b}, \dots, \log w_{Kb})

    with f the pure function `bound` and s the data plate's scale, which multiplies *after* the particles are reduced:
    under a subsampled plate or `poutine.scale` the loss is an unbiased estimate of the full data's. A subclass gives
    `bound`; `differentiable_loss` is the one implementation, and `loss`, `loss_and_grads` and the module made by
    ``bound(model, guide)`` are read off it, so that a bound replaces `pyro.infer.Trace_ELBO` in any program.

    Sites without reparameterised samples get the score-function gradient, each particle with the value of the bound
    without it as its baseline (Mnih & Rezende 2016, arXiv:1602.06725, section 2.4), so any bound is right for discrete
    latent variables.

    Args:
        num_particles: K.
        beta: Weight of the KL terms log p(z) - log q(z | x) (Higgins et al. 2017), kept as the 0-dim tensor ``.beta``,
            so that a schedule can change it in place. 1 is the bound on log p(x).
        max_plate_nesting: How many dimensions the program's plates take; infinity means: find out.
        retain_graph: Passed on to ``backward`` in `loss_and_grads`.

    Raises:
        ValueError: If ``num_particles < 1``.
    """

    linear: ClassVar[bool] = False

    def __init__(
        self,
        num_particles: int = 1,
        *,
        beta: int | float = 1.0,
        max_plate_nesting: int | float = math.inf,
        retain_graph: bool | None = None,
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"{type(self).__name__} got num_particles={num_particles}: at least one is needed.")
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=False, retain_graph=retain_graph)
        self.beta = torch.tensor(float(beta), dtype=torch.float64, device="cpu")  # 0-dim: mixes with any other
        self._guessed: tuple[Program, Program, int] | None = None

    @staticmethod
    @abstractmethod
    def bound(log_w: Tensor) -> Tensor:
        """Reduce log-weights ``(K, *batch)`` to the bound ``(*batch)``, in nats, bigger is better."""

    def log_weights(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> LogWeights:
        """Weigh this bound's K particles; see `pyro_dgm.infer.log_weights`."""
        weights = log_weights(
            model,
            guide,
            *args,
            particles=self.num_particles,
            max_plate_nesting=self._nesting(model, guide),
            linear=self._additive,
            **kwargs,
        )
        self._guessed = (model, guide, weights.nesting)
        if weights.scale is None and not self._additive:
            raise ValueError(
                f"{type(self).__name__}(num_particles={self.num_particles}) got sites that do not share one scale, of "
                f"{sorted(weights.model_terms)}: a scale inside the log of a mean would make it no bound on log p(x). "
                f"Scale all sites alike; weigh the KL by beta= instead of poutine.scale; give a global variable the "
                f"full data instead of a subsample; or use ELBO, which is linear in every term."
            )
        return weights

    @property
    def _additive(self) -> bool:
        return self.linear or self.num_particles == 1

    def _nesting(self, model: Program, guide: Program) -> int | float:
        """Look at a pair's plates once, and not at every step."""
        if self.num_particles == 1 or not math.isinf(self.max_plate_nesting):
            return self.max_plate_nesting
        if self._guessed is None or self._guessed[:2] != (model, guide):
            return math.inf
        return self._guessed[2]

    def values(self, weights: LogWeights) -> tuple[Tensor, Tensor]:
        """Reduce weights to the bound, and to a surrogate of the same value that has the bound's gradient.

        Args:
            weights: What `log_weights` gave.

        Returns:
            Two tensors of shape ``(B,)`` in nats; they are one where every site is reparameterised.
        """
        log_w = (weights.scaled or weights).weighted(self.beta)
        value = self.bound(log_w)
        if weights.score is None:
            return value, value
        signal = self._signal(log_w.detach())
        return value, value + (signal * (weights.score - weights.score.detach())).sum(0)

    def _signal(self, log_w: Tensor) -> Tensor:
        """Credit each particle with what it adds to the bound, shape ``(K, *batch)``."""
        value, particles = self.bound(log_w), len(log_w)
        if particles == 1:
            return value.unsqueeze(0)
        index = torch.arange(particles - 1, device=log_w.device).unsqueeze(1)  # (K - 1, 1)
        others = index + (index >= torch.arange(particles, device=log_w.device)).to(index)  # (K - 1, K)
        baseline = self.bound(log_w[others])  # (K, *batch)
        signal = value - torch.where(baseline.isfinite(), baseline, 0.0)  # none, where all other weights are zero
        return torch.where(signal.isfinite(), signal, 0.0)

    def total(self, weights: LogWeights) -> Tensor:
        """Sum the bound over the data, scaled, with the sites that belong to no datum: a scalar in nats.

        Its gradient is that of the bound, for sites without reparameterised samples too.
        """
        value = self.values(weights)[1]
        scale = 1.0 if weights.scale is None else weights.scale
        total = value.sum() if isinstance(scale, (int, float)) and scale == 1 else (scale * value).sum()
        for constant in weights.constants.values():
            total = total + constant
            if weights.score is not None and self.num_particles == 1:  # it may depend on the one particle
                total = total + constant.detach() * (weights.score - weights.score.detach()).sum()
        return total

    def per_datum(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the bound for every datum, unscaled.

        Args:
            model: A Pyro program with a data plate.
            guide: Its guide.
            *args: What both are called with, the data first.
            **kwargs: Likewise, by name.

        Returns:
            The bound in nats, shape ``(B,)``; beta weighs the KL terms. Observed sites outside the data plate belong
            to no datum and are left out; `loss` has them.

        Raises:
            ValueError: If no plate encloses all latent variables, or the sites in it do not share one scale and the
                bound is not linear in them.
        """
        weights = self.log_weights(model, guide, *args, **kwargs)
        require_data_plate(weights)
        return self.bound(weights.weighted(self.beta))

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative bound summed over the data, in nats, as a scalar tensor to call ``backward`` on."""
        return -self.total(self.log_weights(model, guide, *args, **kwargs))

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative bound summed over the data, in nats, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the loss and add its gradient to every parameter's ``.grad``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.detach()

    def __call__(self, model: Program, guide: Program) -> ELBOModule:
        """Fix a pair: the module's call gives `differentiable_loss`, its parameters are the pair's."""
        return _BoundModule(model, guide, self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guessed": None}  # a program may not be picklable, and a copy can look again

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[poutine.Trace, poutine.Trace]:
        traces = particle_traces(model, guide, args, kwargs, particles=1, max_plate_nesting=self.max_plate_nesting)
        return traces[0], traces[1]


class _BoundModule(ELBOModule):
    """A bound with its model and guide, which may be methods of modules."""

    def __init__(self, model: Program, guide: Program, bound: Bound) -> None:
        super().__init__(model, guide, bound)  # type: ignore[arg-type]  # Pyro keeps any callable
        self.bound = bound
        self.owners = nn.ModuleList(
            owner for owner in owners(model, guide) if owner is not model and owner is not guide
        )
        self._pair = (without_statements(model), without_statements(guide))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        with local_parameters(self.model, self.guide):
            return self.bound.differentiable_loss(*self._pair, *args, **kwargs)


def require_data_plate(weights: LogWeights) -> None:
    """Refuse weights that have no dimension for data."""
    terms = [*weights.model_terms.values(), *weights.guide_terms.values()]
    if not terms or terms[0].dim() < 2:
        raise ValueError(
            f"No plate encloses all coupled sites (model: {sorted(weights.model_terms)}, guide: "
            f"{sorted(weights.guide_terms)}), so there is no value per datum. Put the local variables of model and "
            f'guide into `with pyro.plate("data", len(x)):`, of one name in both, and declare only event dimensions '
            f"with .to_event(). With a global latent variable only the whole data set has a bound: use loss or "
            f"differentiable_loss."
        )
