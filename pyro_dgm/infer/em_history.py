# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What happened in the sweeps of EM: the objective after each, whether it ever fell, and why it could."""

from dataclasses import dataclass, field


@dataclass
class EMHistory:
    """The record of a run of EM.

    Attributes:
        objectives: (log-likelihood + log-prior) / N in nats per datum; the first is of the start, the t-th of the
            parameters after t M-steps. With fixed t the M-step maximises a lower bound that touches the objective
            there, so it cannot fall but by rounding, or by an M-step that is not the maximum. Empty online, where
            parameters move within a sweep.
        converged: Whether the last sweep moved the objective by no more than the tolerance.
        slack: How much of the objective, relatively, is rounding.
        inexact: Why the M-step is not the exact maximum, or None if it is.
        restarts: The last objective of each start, the best of which these objectives belong to; -inf of a start that
            ended in an error.

    >>> EMHistory([-3.0, -2.5, -2.6], inexact="a ridge is added").why
    'sweep 2 lowered the objective from -2.5 to -2.6, as a ridge is added.'
    """

    objectives: list[float] = field(default_factory=list)
    converged: bool = False
    slack: float = 1e-10
    inexact: str | None = None
    restarts: list[float] = field(default_factory=list)

    @property
    def sweeps(self) -> int:
        """How many M-steps were evaluated."""
        return max(len(self.objectives) - 1, 0)

    @property
    def falls(self) -> list[int]:
        """The sweeps that lowered the objective by more than rounding, or to NaN; 1 is the first."""
        pairs = zip(self.objectives, self.objectives[1:], strict=False)
        return [t for t, (old, new) in enumerate(pairs, 1) if not new >= old - self.slack * (1 + abs(old))]

    @property
    def monotone(self) -> bool | None:
        """Whether the objective never fell by more than rounding; None if none was recorded, as online."""
        return not self.falls if self.objectives else None

    @property
    def why(self) -> str | None:
        """Why the objective fell, in words; None if it did not."""
        if not self.falls:
            return None
        t = self.falls[0]
        reason = self.inexact or "the M-step did not reach the maximum; in low precision try float64"
        return (
            f"sweep {t} lowered the objective from {self.objectives[t - 1]:.10g} to {self.objectives[t]:.10g}, "
            f"as {reason}."
        )

    def settled(self, tolerance: int | float) -> bool:
        """Whether the last sweep moved the objective by no more than a tolerance, or downwards by rounding only."""
        return abs(self.gain) <= tolerance or (self.gain <= 0 and self.sweeps not in self.falls)

    @property
    def gain(self) -> float:
        """What the last sweep gained, in nats per datum; infinite before there was one."""
        return self.objectives[-1] - self.objectives[-2] if self.sweeps else float("inf")
