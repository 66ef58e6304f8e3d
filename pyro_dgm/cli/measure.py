# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Measure a model on one split and lay the numbers out for people and for JSON."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from pyro_dgm.evaluate import ActiveUnits, ElboTerms, Estimate, active_units, elbo_terms, log_likelihood

MEAN_SAMPLES = 1000
"""Samples of a posterior mean that has no closed form (a flow's): a unit that is off, whose posterior is N(0, 1), then
seems to vary by 0.001 from datum to datum, a tenth of what counts as active."""


@runtime_checkable
class Program(Protocol):
    """A model as the command line knows it: a module with a Pyro model and its guide.

    It may have more, which is used if it is there: ``has_codes``, False if what is latent is no code of the datum (an
    image before rounding, say), so that nobody counts its units; ``at_temperature(t)``, itself with other noise;
    ``encode`` and ``decode``, which lead from data to noise and back.
    """

    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Score x, or dream without it."""

    def guide(self, x: Tensor) -> Tensor:
        """Guess the latent variables of x."""


@dataclass(frozen=True)
class Measures:
    """All that ``pyro-dgm evaluate`` says of a model, each with its estimator and standard error.

    Attributes:
        terms: The -ELBO and its parts.
        units: The active units, if anything is latent and a code.
        nll: The negative log-likelihood by importance sampling, if it was asked for.
        shape: Shape of one datum, for bits per dimension.
    """

    terms: ElboTerms
    units: ActiveUnits | None
    nll: Estimate | None
    shape: tuple[int, ...]

    @property
    def kl(self) -> Estimate | None:
        """The KL terms of all latent variables together, if there are any."""
        parts = list(self.terms.kl.values())
        if not parts:
            return None
        return replace(parts[0], name="KL =", values=sum(part.values for part in parts[1:]) + parts[0].values)

    @property
    def gap(self) -> Estimate | None:
        """What the posterior costs: -ELBO less NLL, datum by datum; it lies below the inference gap, -ELBO + log p."""
        if self.nll is None or not self.terms.kl:
            return None
        terms = self.terms.negative_elbo
        method = f"-ELBO of {terms.method} less NLL of {self.nll.method}"
        return Estimate("gap =", terms.values - self.nll.values, method=method, noun=terms.noun)

    @property
    def bits_per_dim(self) -> Estimate | None:
        """The best bound that was measured, in bits per dimension; none where data are real numbers."""
        best = self.nll or self.terms.negative_elbo
        return None if best.density else best.to_bits_per_dim(self.shape)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The numbers that are means over data, under the names that recipes use."""
        elbo = self.terms.negative_elbo
        found = {
            "nll": self.nll,
            "gap": self.gap,
            "negative_elbo": elbo,
            "reconstruction": self.terms.reconstruction,
            "kl": self.kl,
            "bits_per_dim": self.bits_per_dim,
            "negative_elbo_bits_per_dim": None if elbo.density else elbo.to_bits_per_dim(self.shape),
        }
        return {key: estimate for key, estimate in found.items() if estimate is not None}

    def as_dict(self) -> dict[str, Any]:
        """The numbers for a JSON file, under the names that recipes use."""
        found = {key: estimate.as_dict() for key, estimate in self.estimates.items()}
        return found if self.units is None else {**found, "active_units": self.units.as_dict()}

    def __str__(self) -> str:
        """One line for each number, the most important first."""
        lines = (self.nll, self.terms, self.gap, self.bits_per_dim, self.units)
        return "\n".join(str(line) for line in lines if line is not None)


def measure(
    program: Program,
    x: Tensor,
    *,
    num_samples: int | None = 5000,
    elbo_samples: int = 1,
    num_data: int | None = None,
    seed: int = 0,
) -> Measures:
    """Measure a model on data.

    Args:
        program: Model and guide.
        x: Data of shape ``(N, *event)``, on the model's device.
        num_samples: Importance samples for the NLL, None for no NLL; 5000 is what published tables use.
        elbo_samples: Samples for each datum's -ELBO. One is what published tables use; more give less noise.
        num_data: Size of a random subset, the same for all numbers; None is all.
        seed: Seed of the subset and of all samples.
    """
    pair = (program.model, program.guide)
    terms = elbo_terms(*pair, x, num_samples=elbo_samples, num_data=num_data, seed=seed)
    units = nll = None
    if terms.kl and has_codes(program):
        units = active_units(*pair, x, num_samples=MEAN_SAMPLES, num_data=num_data, seed=seed, batch_size=1000)
    if num_samples is not None:
        nll = log_likelihood(*pair, x, num_samples=num_samples, num_data=num_data, seed=seed)
    return Measures(terms, units, nll, tuple(x.shape[1:]))


def has_codes(program: Program) -> bool:
    """Whether what is latent in a model is a code of the datum, which it is unless the model says otherwise."""
    return bool(getattr(program, "has_codes", True))
