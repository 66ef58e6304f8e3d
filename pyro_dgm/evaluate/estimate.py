# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A measured number carries its unit, its estimator, its number of data and its standard error."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from pyro_dgm.evaluate.bits_per_dim import bits_per_dim


@dataclass(frozen=True, eq=False)
class Estimate:
    r"""One value for every datum, and what can be said about their mean.

    .. math:: \bar v = \frac{1}{N} \sum_{n=1}^N v_n, \qquad
              \mathrm{s.e.} = \sqrt{\frac{1}{N (N - 1)} \sum_{n=1}^N (v_n - \bar v)^2}

    Attributes:
        name: What is measured and how it relates to the truth, e.g. ``"NLL <="``.
        values: Per-datum values, shape ``(N,)``, float64 on the CPU. These are costs: *lower is better*.
        method: How it was estimated, e.g. ``"IS, 5000 samples"``.
        unit: ``"nats"`` (per datum) or ``"bits/dim"``.
        ess: Effective sample size of each datum's importance weights, shape ``(N,)``, or ``None`` where no weights are.
        noun: What one datum is called: ``"image"`` or ``"datum"``.
        density: Whether the values come from densities of real numbers, which have no bits per dimension.

    >>> import torch
    >>> print(Estimate("NLL <=", torch.tensor([82.07, 82.21]), method="IS, 5000 samples", noun="image"))
    NLL <= 82.14 +- 0.07 nats (IS, 5000 samples, 2 images)
    """

    name: str
    values: Tensor
    method: str
    unit: str = "nats"
    ess: Tensor | None = None
    noun: str = "datum"
    density: bool = False

    def __post_init__(self) -> None:
        """Refuse values that are not one number for each of at least one datum."""
        if self.values.dim() != 1 or len(self.values) < 1:
            raise ValueError(
                f"Estimate({self.name!r}) got values of shape {tuple(self.values.shape)}: it needs one value for each "
                f"of at least one datum, shape (N,)."
            )

    @property
    def mean(self) -> float:
        """The mean over data, in `unit`."""
        return float(self.values.double().mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over data, in `unit`; NaN for a single datum, whose spread is unknown."""
        if len(self.values) < 2:
            return math.nan
        return float(self.values.double().std()) / math.sqrt(len(self.values))

    def to_bits_per_dim(self, event_shape: tuple[int, ...]) -> "Estimate":
        """Express the same estimate in bits per dimension.

        Args:
            event_shape: Shape of one datum, e.g. ``(3, 32, 32)``.

        Returns:
            An `Estimate` whose unit is ``"bits/dim"``.

        Raises:
            ValueError: If the unit is not nats, or the values come from densities of real numbers.
        """
        if self.density:
            raise ValueError(
                f"{self.name!r} is a density of real numbers, so it has no bits per dimension: in other units (metres "
                f"for feet) it would be another number. Report nats, or model integers and dequantise them."
            )
        if self.unit != "nats":
            raise ValueError(f"to_bits_per_dim starts from nats, and {self.name!r} is in {self.unit} already.")
        return replace(self, values=bits_per_dim(-self.values, event_shape), unit="bits/dim")

    def as_dict(self) -> dict[str, str | float | int | None]:
        """List the summary for a JSON file; what is not finite is ``None``, since JSON has neither NaN nor infinity."""
        error = self.standard_error
        return {
            "name": self.name.split(" ")[0],
            "mean": self.mean if math.isfinite(self.mean) else None,
            "standard_error": error if math.isfinite(error) else None,
            "unit": self.unit,
            "method": self.method,
            "num_data": len(self.values),
            "ess_min": None if self.ess is None else float(self.ess.min()),
            "ess_median": None if self.ess is None else float(self.ess.median()),
            "text": str(self),
        }

    def __str__(self) -> str:
        """Print as in ``NLL <= 82.14 +- 0.07 nats (IS, 5000 samples, 10000 images)``.

        Two decimals, as tables have; more where the standard error would otherwise print as zero.
        """
        error = self.standard_error
        decimals = 2 if math.isnan(error) or error == 0 else min(6, max(2, -math.floor(math.log10(error))))
        count = len(self.values)
        noun = self.noun if count == 1 else {"datum": "data"}.get(self.noun, f"{self.noun}s")
        number = f"{self.mean:.{decimals}f} +- {error:.{decimals}f} {self.unit}"
        return f"{self.name} {number} ({self.method}, {count} {noun})"
