# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The methods that a comparison of mixtures has: each takes the same problem and gives a `MixtureFit`."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from pyro_dgm.infer import CoordinateAscent, GradientStep
from pyro_dgm.infer.enumerated_objective import EnumeratedObjective
from pyro_dgm.infer.expectation_maximization import EM
from pyro_dgm.infer.no_u_turn import Posterior, nuts
from pyro_dgm.models import AmortisedMixture, BayesianMixture, GaussianMixture, KMeans, MarginalMixture
from pyro_dgm.nn import MLP
from pyro_dgm.train.mixture_fit import Curve, MixtureFit
from pyro_dgm.train.step import Step
from pyro_dgm.train.timed_step import TimedStep
from pyro_dgm.train.trainer import Trainer


@dataclass(frozen=True)
class Problem:
    """What every method is given; see `compare_mixtures`. ``start`` must be copied before it is changed."""

    x: Tensor
    held_out: Tensor
    start: GaussianMixture
    folder: Path
    sweeps: int
    batch_size: int
    lr: int | float
    warmup: int
    samples: int
    seed: int

    @property
    def components(self) -> int:
        """K."""
        return self.start.components

    @property
    def batches(self) -> list[Tensor]:
        """The data in a random order, cut up."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        return list(self.x[order].split(self.batch_size))


Score = Callable[[], Tensor]


def _train(
    problem: Problem,
    name: str,
    step: Step,
    batches: list[Tensor],
    objective: Score,
    judge: Score,
    *,
    done: int = 0,
    seconds: float = 0.0,
) -> Curve:
    """Repeat a step for all sweeps that are not done, and draw the curve of an objective, evaluated after each."""
    timed, curve = TimedStep(step), Curve()

    def validate() -> dict[str, float]:
        curve.add(done + len(curve.sweeps), seconds + timed.seconds, float(objective().mean()))
        return {"loss": -float(judge().mean()), "objective": curve.objectives[-1], "fit_seconds": timed.seconds}

    with torch.no_grad():
        validate()
    trainer = Trainer(epochs=problem.sweeps - done, seed=problem.seed, tensorboard=False, progress=False)
    config = {"method": name, "components": problem.components, "sweeps": problem.sweeps, "seed": problem.seed}
    trainer.fit(timed, batches, folder=problem.folder / name, validate=validate, config=config)
    return curve


@torch.no_grad()
def _of_mixture(problem: Problem, name: str, what: str, mixture: GaussianMixture, curve: Curve) -> MixtureFit:
    """Read a fit off a mixture with parameters, whose own q(z | x) is exact."""
    return MixtureFit(
        method=name,
        objective=what,
        weights=mixture.weights.detach().clone(),
        means=mixture.loc.detach().clone(),
        covariances=mixture.covariances.detach().clone(),
        responsibilities=mixture.responsibilities(problem.x),
        train=mixture.log_prob(problem.x),
        held_out=mixture.log_prob(problem.held_out),
        curve=curve,
        gap=0.0,
    )


def fit_em(problem: Problem) -> MixtureFit:
    """Fit by expectation maximisation; a sweep is an epoch of one batch."""
    mixture = copy.deepcopy(problem.start)
    scores = partial(mixture.log_prob, problem.x), partial(mixture.log_prob, problem.held_out)
    curve = _train(problem, "em", EM(mixture), [problem.x], *scores)
    return _of_mixture(problem, "em", "log p(x)", mixture, curve)


def fit_svi(problem: Problem) -> MixtureFit:
    """Fit by gradients of the exact log-likelihood, z summed by enumeration."""
    mixture = copy.deepcopy(problem.start)
    scores = partial(mixture.log_prob, problem.x), partial(mixture.log_prob, problem.held_out)
    step = _by_adam(problem, EnumeratedObjective(mixture.model), sweeps=problem.sweeps)
    curve = _train(problem, "svi", step, problem.batches, *scores)
    return _of_mixture(problem, "svi", "log p(x)", mixture, curve)


def fit_amortised(problem: Problem) -> MixtureFit:
    """Fit by gradients of an ELBO whose q(z | x) is a network, z summed by enumeration."""
    mixture = copy.deepcopy(problem.start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        net = partial(MLP, hidden=(64, 64))
        model = AmortisedMixture(mixture=mixture, shape=tuple(problem.x.shape[1:]), net=net).to(problem.x)
    objective = EnumeratedObjective(model.model, model.guide)
    scores = partial(model.elbo, problem.x), partial(model.log_prob, problem.held_out)
    done = problem.sweeps // 10
    mixture.requires_grad_(requires_grad=False)
    alone = TimedStep(_by_adam(problem, objective, sweeps=done))
    for _ in range(done):
        for batch in problem.batches:
            alone(batch)
        alone.epoch_end()
    mixture.requires_grad_(requires_grad=True)
    step = _by_adam(problem, objective, sweeps=problem.sweeps - done)
    curve = _train(problem, "amortised", step, problem.batches, *scores, done=done, seconds=alone.seconds)
    fit = _of_mixture(problem, "amortised", "ELBO", mixture, curve)
    with torch.no_grad():
        gap = float((fit.train - model.elbo(problem.x)).mean())
        return MixtureFit(**{**vars(fit), "gap": gap, "responsibilities": model.responsibilities(problem.x)})


def _by_adam(problem: Problem, objective: nn.Module, *, sweeps: int) -> GradientStep:
    """Clip gradients, for a component that holds few data has a steep density; and let the learning rate fall."""
    adam = torch.optim.Adam((part for part in objective.parameters() if part.requires_grad), lr=problem.lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=max(sweeps, 1))
    return GradientStep(objective, adam, clip_norm=1.0, scheduler=falling)


def fit_mean_field(problem: Problem) -> MixtureFit:
    """Fit the Bayesian mixture by coordinate ascent; the objective bounds log p(X) of all data together."""
    model = BayesianMixture(dim=problem.x.shape[1], components=problem.components).to(problem.x)
    model.start(problem.x, seed=problem.seed)

    def bound() -> Tensor:
        total = model.coordinate_statistics(problem.x)["bound"] + model.global_bound()
        return total / len(problem.x)

    judge = partial(model.log_predictive, problem.held_out)
    curve = _train(problem, "mean_field", CoordinateAscent(model), [problem.x], bound, judge)
    with torch.no_grad():
        return MixtureFit(
            method="mean_field",
            objective="bound on log p(X) / N",
            weights=model.weights.clone(),
            means=model.loc.detach().clone(),
            covariances=model.covariances.clone(),
            responsibilities=model.responsibilities(problem.x),
            train=model.log_predictive(problem.x),
            held_out=model.log_predictive(problem.held_out),
            curve=curve,
        )


def fit_k_means(problem: Problem) -> MixtureFit:
    """Fit by Lloyd's algorithm: an ELBO whose q(z | x) is certain of the nearest centre, with the best one variance."""
    x, held_out, dim = problem.x, problem.held_out, problem.x.shape[1]
    centres = KMeans(dim=dim, components=problem.components, variance=0).to(x)
    with torch.no_grad():
        centres.loc.copy_(problem.start.loc)
        centres.center.copy_(problem.start.center)

    def variance() -> Tensor:
        spread = centres.inertia(x) / x.numel()
        return spread.clamp_min(torch.finfo(x.dtype).tiny ** 0.5)  # where each datum is a centre

    def elbo() -> Tensor:
        return -math.log(problem.components) - 0.5 * dim * (1 + (2 * math.pi * variance()).log())

    def spheres() -> KMeans:
        soft = KMeans(dim=dim, components=problem.components, variance=float(variance())).to(x)
        soft.load_state_dict(centres.state_dict())
        return soft

    curve = _train(problem, "k_means", EM(centres), [x], elbo, lambda: spheres().log_prob(held_out))
    fit = spheres()
    with torch.no_grad():
        train = fit.log_prob(x)
        return MixtureFit(
            method="k_means",
            objective="ELBO of hard q",
            weights=fit.weights.clone(),
            means=fit.loc.detach().clone(),
            covariances=variance() * torch.eye(dim).to(x).expand(problem.components, dim, dim),
            responsibilities=centres.responsibilities(x),
            train=train,
            held_out=fit.log_prob(held_out),
            curve=curve,
            gap=float(train.mean() - elbo()),
        )


def fit_nuts(problem: Problem) -> MixtureFit:
    """Draw from the posterior of the Bayesian mixture, z summed; its curve is log p(x) along the chain."""
    x, start = problem.x, problem.start
    covariance = x.mT.cov() + torch.finfo(x.dtype).eps ** 0.5 * torch.eye(x.shape[1]).to(x)
    model = MarginalMixture(components=problem.components, mean=x.mean(0), scale=covariance.inverse()).to(x)
    with torch.no_grad():
        first = model.coordinates(start.weights, start.loc, start.covariances)
        found = nuts(
            model.model,
            x,
            start=first,
            samples=problem.samples,
            warmup=problem.warmup,
            max_tree_depth=5,
            seed=problem.seed,
        )
        curve = Curve()
        curve.add(0, 0.0, float(model.log_prob(x, first).mean()))
        for number, (runs, seconds) in enumerate(zip(found.evaluations, found.seconds, strict=True)):
            here = {name: values[number] for name, values in found.path.items()}
            curve.add(runs, seconds, float(model.log_prob(x, here).mean()))
        draws = model.relabelled(found.draws, start.loc)
        each = [{name: values[number] for name, values in draws.items()} for number in range(problem.samples)]
        return MixtureFit(
            method="nuts",
            objective="log p(x) at a draw",
            weights=draws["weights"].mean(0),
            means=draws["means"].mean(0),
            covariances=typical_covariances(model, draws),
            responsibilities=torch.stack([model.log_joint(x, values).softmax(-1) for values in each]).mean(0),
            train=_predictive(model, x, each),
            held_out=_predictive(model, problem.held_out, each),
            curve=curve,
            note=_verdict(found),
        )


def typical_covariances(model: MarginalMixture, draws: dict[str, Tensor]) -> Tensor:
    """Invert the mean precisions of draws, through their factors: it is accurate, and a covariance may have no mean."""
    root = model.precision_root(draws["squares"], draws["below"])  # (S, K, D, D)
    together = torch.cat(list(root), -1) / len(root) ** 0.5  # (K, D, S D), a root of the mean
    return torch.cholesky_inverse(torch.linalg.qr(together.mT, mode="r").R, upper=True)


def _predictive(model: MarginalMixture, x: Tensor, draws: list[dict[str, Tensor]]) -> Tensor:
    scores = torch.stack([model.log_prob(x, values) for values in draws])
    return scores.logsumexp(0) - math.log(len(draws))


def _verdict(found: Posterior) -> str:
    kept, total = len(found.seconds) - found.warmup, found.divergences
    return f"{kept} draws after {found.warmup}, {total} divergent; one chain stays near the start's mode"


METHODS: dict[str, Callable[[Problem], MixtureFit]] = {
    "em": fit_em,
    "svi": fit_svi,
    "amortised": fit_amortised,
    "mean_field": fit_mean_field,
    "nuts": fit_nuts,
    "k_means": fit_k_means,
}
