# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Measure a model on one split and lay the numbers out for people and for JSON."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from pyro_dgm.evaluate import ActiveUnits, ElboTerms, Estimate, active_units, elbo_terms, log_likelihood


@runtime_checkable
class Program(Protocol):
    """A model as the command line knows it: a module with a Pyro model and its guide."""

    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Score x, or dream without it."""

    def guide(self, x: Tensor) -> Tensor:
        """Guess the latent variables of x."""


@dataclass(frozen=True)
class Measures:
    """All that ``pyro-dgm evaluate`` says of a model, each with its estimator and standard error.

    Attributes:
        terms: The -ELBO and its parts.
        units: The active units.
        nll: The negative log-likelihood by importance sampling, if it was asked for.
        shape: Shape of one datum, for bits per dimension.
    """

    terms: ElboTerms
    units: ActiveUnits
    nll: Estimate | None
    shape: tuple[int, ...]

    @property
    def kl(self) -> Estimate:
        """The KL terms of all latent variables together."""
        parts = list(self.terms.kl.values())
        return Estimate(
            "KL =", sum(part.values for part in parts[1:]) + parts[0].values, method=parts[0].method, noun=parts[0].noun
        )

    @property
    def bits_per_dim(self) -> Estimate:
        """The best bound that was measured, in bits per dimension."""
        best = self.nll or self.terms.negative_elbo
        return best.to_bits_per_dim(self.shape)

    def as_dict(self) -> dict[str, Any]:
        """The numbers for a JSON file, under the names that recipes use."""
        estimates = {
            "negative_elbo": self.terms.negative_elbo,
            "reconstruction": self.terms.reconstruction,
            "kl": self.kl,
            "bits_per_dim": self.bits_per_dim,
        }
        found = {"nll": self.nll, **estimates} if self.nll else estimates
        return {**{key: value.as_dict() for key, value in found.items()}, "active_units": self.units.as_dict()}

    def __str__(self) -> str:
        """One line for each number, the most important first."""
        first = [str(self.nll)] if self.nll else []
        return "\n".join([*first, str(self.terms), str(self.bits_per_dim), str(self.units)])


def measure(
    program: Program,
    x: Tensor,
    *,
    num_samples: int | None = 5000,
    num_data: int | None = None,
    seed: int = 0,
) -> Measures:
    """Measure a model on data.

    Args:
        program: Model and guide.
        x: Data of shape ``(N, *event)``, on the model's device.
        num_samples: Importance samples for the NLL, None for no NLL; 5000 is what published tables use.
        num_data: Size of a random subset, the same for all numbers; None is all.
        seed: Seed of the subset and of all samples.
    """
    pair = (program.model, program.guide)
    terms = elbo_terms(*pair, x, num_data=num_data, seed=seed)
    units = active_units(*pair, x, num_data=num_data, seed=seed)
    nll = None
    if num_samples is not None:
        nll = log_likelihood(*pair, x, num_samples=num_samples, num_data=num_data, seed=seed)
    return Measures(terms, units, nll, tuple(x.shape[1:]))
