# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of all bounds: a Pyro ELBO whose loss is one pure function of unscaled, per-datum log-weights."""

import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any, ClassVar, get_args

import pyro
import torch
from pyro import poutine
from pyro.infer.elbo import ELBOModule
from torch import Tensor

from pyro_dgm.infer.bound_module import BoundModule
from pyro_dgm.infer.draws import DrawnWeights, Draws, guide_detached, inject
from pyro_dgm.infer.gradients import PATHS, Gradient, Shares, credits, slopes
from pyro_dgm.infer.local_parameters import Program
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.particles import particle_traces
from pyro_dgm.nn.without_autocast import without_autocast


class Bound(pyro.infer.ELBO, ABC):
    r"""Estimate a bound on log p(x) and its gradient, for any model and guide.

    .. math:: \text{loss} = -\sum_b s_b \, f(\log w_{1b}, \dots, \log w_{Kb})

    with f the pure function `bound` and s the data plate's scale, which multiplies *after* the particles are reduced:
    under a subsampled plate or `poutine.scale` the loss is an unbiased estimate of the full data's. A subclass gives
    `bound`; `differentiable_loss` is the one implementation, and `loss`, `loss_and_grads` and the module made by
    ``bound(model, guide)`` are read off it, so that a bound replaces `pyro.infer.Trace_ELBO` in any program.

    Sites without reparameterised samples get the score-function gradient, each particle with the value of the bound
    without it as its baseline (Mnih & Rezende 2016, arXiv:1602.06725, section 2.4), so any bound is right for discrete
    latent variables.

    An upper bound has the sign turned: its loss is the bound itself, so that what is minimised always becomes tighter.

    Args:
        num_particles: K.
        gradient: How the guide's gradient is estimated; see `pyro_dgm.infer.gradients`. "total" is the plain
            derivative, and what the score function gives at sites without reparameterised samples. "stl" (sticking the
            landing, for the ELBO) and "dreg" (doubly reparameterised, for any bound) have less variance and need
            reparameterised samples; flows are then scored by their inverse, and must have one. "vimco" is "total" with
            another baseline. The model's gradient is the same in all. (All this is of the loss; `per_datum` has the
            plain derivative.)
        beta: Weight of the KL terms log p(z) - log q(z | x) (Higgins et al. 2017), kept as the 0-dim tensor ``.beta``,
            so that a schedule can change it in place. 1 is the bound on log p(x). It stays on the CPU, whatever the
            device of the rest, so a CUDA graph captured with it would keep the value that it had then.
        max_plate_nesting: How many dimensions the program's plates take; infinity means: find out.
        retain_graph: Passed on to ``backward`` in `loss_and_grads`.

    Raises:
        ValueError: If ``num_particles < 1``, beta is negative or no number, or the bound has no such gradient; at call,
            if the gradient needs samples that carry one, and a site of the guide has none; or a score that the guide's
            point masses (`pyro.distributions.Delta`) do not have, as their place or density depends on parameters.
    """

    linear: ClassVar[bool] = False  # in the log-weights
    upper: ClassVar[bool] = False  # an upper bound, which is minimised
    split: ClassVar[bool] = False  # whether the guide learns from something else than the bound: from `_shares`
    reweighted: ClassVar[bool] = False  # whether the guide learns log q at its samples, and no expectation over them
    gradients: ClassVar[tuple[str, ...]] = get_args(Gradient)

    def __init__(
        self,
        num_particles: int = 1,
        *,
        beta: int | float = 1.0,
        gradient: Gradient = "total",
        max_plate_nesting: int | float = math.inf,
        retain_graph: bool | None = None,
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"{type(self).__name__} got num_particles={num_particles}: at least one is needed.")
        if not 0 <= beta < math.inf:
            raise ValueError(f"{type(self).__name__} got beta={beta}: a weight of the KL is a number from 0 on.")
        if gradient not in self.gradients:
            raise ValueError(f"{type(self).__name__} got gradient={gradient!r}: it has one of {self.gradients}.")
        if gradient == "vimco" and num_particles == 1:
            raise ValueError('gradient="vimco" takes the other particles as baseline: give num_particles=2 or more.')
        self.gradient = gradient
        super().__init__(num_particles, max_plate_nesting, vectorize_particles=False, retain_graph=retain_graph)
        self.beta = torch.tensor(float(beta), dtype=torch.float64, device="cpu")  # 0-dim: mixes with any other
        self._guessed: tuple[Program, Program, int] | None = None

    @abstractmethod
    def bound(self, log_w: Tensor) -> Tensor:
        """Reduce log-weights ``(K, *batch)`` to the bound ``(*batch)``, in nats."""

    def log_weights(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> LogWeights:
        """Weigh this bound's K particles; see `pyro_dgm.infer.log_weights`.

        With gradients enabled they are what the loss needs: for "stl" and "dreg" weights at detached samples.
        """
        drawn = (self.split or self.gradient in PATHS) and torch.is_grad_enabled()
        return self._log_weights(model, guide, args, kwargs, Draws() if drawn else None)

    def _log_weights(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], draws: Draws | None
    ) -> LogWeights:
        with nullcontext() if draws is None else draws:
            weights = log_weights(
                model,
                guide if draws is None else draws.of(guide),
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
        if draws is None:
            return weights
        self._require_paths(weights, draws)
        return draws.with_weights(weights)

    def _require_paths(self, weights: LogWeights, draws: Draws) -> None:
        who = f"{type(self).__name__}(gradient={self.gradient!r})"
        if weights.score is not None and self.gradient in PATHS:
            raise ValueError(
                f"{who} got sites whose samples carry no gradient (or, by rejection, not all of it): "
                f'{draws.without_path or sorted(weights.guide_terms)}. Use gradient="total" or "vimco", which have the '
                f"score function, or a relaxed distribution."
            )
        if draws.learned_points and (self.gradient in PATHS or self.reweighted):
            raise ValueError(
                f"{who} got point masses, {draws.learned_points} (Delta), that depend on parameters not only through "
                f'earlier samples: log q has no score there. Use gradient="total"'
                f"{' of ELBO or IWAE' * self.reweighted}, or a distribution with a density."
            )

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

    def _weigh(self, weights: LogWeights) -> Tensor:
        """Add up the terms to log-weights of shape ``(K, *batch)``, each KL term with its weight."""
        return weights.weighted(self.beta)

    def values(self, weights: LogWeights) -> tuple[Tensor, Tensor]:
        """Reduce weights to the bound, and to a surrogate of the same value that has the bound's gradient.

        Args:
            weights: What `log_weights` gave.

        Returns:
            Two tensors of shape ``(B,)`` in nats; they are one where every site is reparameterised.
        """
        log_w = self._weigh(weights.scaled or weights)
        value = self.bound(log_w)
        if isinstance(weights, DrawnWeights):
            return value, self._lesson(weights, log_w)
        if weights.score is None:
            return value, value
        signal = self._signal(log_w.detach())
        return value, value + (signal * (weights.score - weights.score.detach())).sum(0)

    def _lesson(self, weights: DrawnWeights, log_w: Tensor) -> Tensor:
        """Give the bound with the gradient to the model, and to the guide at samples as they are, shape ``(B,)``."""
        still = guide_detached(weights)
        value = self.bound(self._weigh(still.scaled or still))
        if self.upper:  # the model would learn to make the data improbable
            value = value.detach()
        shares = self._shares(log_w.detach())
        if shares.score is not None:
            for log_q in (weights.scaled or weights).guide_terms.values():
                value = value + (shares.score * (log_q - log_q.detach())).sum(0)
        if shares.signal is not None and weights.score is not None:
            value = value + (shares.signal * (weights.score - weights.score.detach())).sum(0)
        return value

    def _shares(self, log_w: Tensor) -> Shares:
        """Say what the guide learns from, where that is not the plain derivative of the bound."""
        first, second = self._slopes(log_w)
        return Shares(path=first if self.gradient == "stl" else first - self.beta * second)

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate the bound to each log-weight, once and twice; a bound that knows the formula gives it."""
        return slopes(self.bound, log_w)

    def _signal(self, log_w: Tensor) -> Tensor:
        """Credit each particle with what it adds to the bound, shape ``(K, *batch)``."""
        return credits(self.bound, log_w, geometric=self.gradient == "vimco")

    def total(self, weights: LogWeights) -> Tensor:
        """Sum the bound over the data, scaled, with the sites that belong to no datum: a scalar in nats to maximise.

        Its gradient is that of the bound, for sites without reparameterised samples too. An upper bound comes negated.
        """
        value = self.values(weights)[1]
        scale = 1.0 if weights.scale is None else weights.scale
        total = value.sum() if isinstance(scale, (int, float)) and scale == 1 else (scale * value).sum()
        for constant in weights.constants.values():
            total = total + (constant.detach() if self.upper else constant)
        if weights.score is not None:
            total = total + self._shared_signal(weights) * (weights.score - weights.score.detach()).sum()
        if isinstance(weights, DrawnWeights):
            total = total + self._path(weights)
        return -total if self.upper else total

    def _shared_signal(self, weights: LogWeights) -> Tensor | float:
        """Credit a single particle with the constants, which then may depend on it: a scalar."""
        if self.num_particles > 1 or self.reweighted or not weights.constants:
            return 0.0
        return torch.stack([part.detach().where(part.isfinite(), 0.0) for part in weights.constants.values()]).sum()

    def _path(self, weights: DrawnWeights) -> Tensor | float:
        """Give the gradient through the samples: a zero that has it."""
        log_w = self._weigh(weights.scaled or weights)
        shares = self._shares(log_w.detach())
        if shares.path is None:
            return 0.0
        scale = 1.0 if weights.scale is None else weights.scale
        terms = [(constant, torch.ones_like(constant)) for constant in weights.constants.values()]
        terms.append((log_w, (shares.path * scale).expand_as(log_w).to(log_w)))
        if weights.score is not None and shares.signal is not None:  # of a site that depends on an earlier sample
            signal = shares.signal * scale + self._shared_signal(weights)
            terms.append((weights.score, signal.expand_as(weights.score).to(weights.score)))
        return inject(weights.draws, terms)

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
        weights = self._log_weights(model, guide, args, kwargs, None)
        require_data_plate(weights)
        return self.bound(self._weigh(weights))

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the loss summed over the data, in nats: a scalar tensor to call ``backward`` on."""
        return -self.total(self.log_weights(model, guide, *args, **kwargs))

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative bound summed over the data, in nats, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the loss and add its gradient to every parameter's ``.grad``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            with without_autocast(loss):
                loss.backward(retain_graph=self.retain_graph)
        return loss.detach()

    def __call__(self, model: Program, guide: Program) -> ELBOModule:
        """Fix a pair: the module's call gives `differentiable_loss`, its parameters are the pair's."""
        return BoundModule(model, guide, self)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guessed": None}  # a program may not be picklable, and a copy can look again

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[poutine.Trace, poutine.Trace]:
        return particle_traces(model, guide, args, kwargs, particles=1, max_plate_nesting=self.max_plate_nesting)[:2]


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
