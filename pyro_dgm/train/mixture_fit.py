# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What fitting a mixture by some method gave: its components, how good they are, and how they were come by."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Curve:
    """An objective while it was raised.

    Attributes:
        sweeps: Passes through the data so far.
        seconds: Seconds of the method's own work so far.
        objectives: Nats per datum, higher is better.
    """

    sweeps: list[int | float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)

    def add(self, sweeps: int | float, seconds: float, objective: float) -> None:
        """Append a point."""
        self.sweeps.append(sweeps)
        self.seconds.append(seconds)
        self.objectives.append(objective)


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """A fitted mixture of K normals in D dimensions; everything on the data's device.

    Attributes:
        method: By which.
        objective: What the method raises, in words: a bound, or the log-likelihood.
        weights: Shape ``(K,)``; posterior means where there is a posterior (``mean_field``, ``nuts``).
        means: Shape ``(K, D)``; posterior means likewise.
        covariances: Shape ``(K, D, D)``; where there is a posterior, inverses of the posterior means of precisions, for
            a covariance need not have a mean.
        responsibilities: Share of each component in each training datum, shape ``(N, K)``, by the method's own q.
        train: log p(x) of each training datum in nats, shape ``(N,)``: under the parameters, or predictive.
        held_out: The same of each held-out datum.
        curve: How the objective rose.
        gap: Mean of KL(q(z | x) || p(z | x)) over the training data, what the objective lacks to the log-likelihood;
            None where parameters have a posterior, whose evidence is not known.
        note: What else is to be said, e.g. of a sampler's divergences.
    """

    method: str
    objective: str
    weights: Tensor
    means: Tensor
    covariances: Tensor
    responsibilities: Tensor
    train: Tensor
    held_out: Tensor
    curve: Curve
    gap: float | None = None
    note: str = ""

    @property
    def assignments(self) -> Tensor:
        """The most probable component of each training datum, int64 of shape ``(N,)``."""
        return self.responsibilities.argmax(-1)

    def reordered(self, order: Tensor) -> "MixtureFit":
        """Give the same mixture with its components in another order, e.g. that of `match_components`."""
        parts = {name: getattr(self, name)[order] for name in ("weights", "means", "covariances")}
        shares = self.responsibilities[:, order]
        return MixtureFit(**{**vars(self), **parts, "responsibilities": shares})
