# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A measured number carries its unit, its estimator, its number of data and its standard error."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from pyro_dgm.evaluate.bits_per_dim import bits_per_dim
from pyro_dgm.evaluate.pareto import TRUSTED


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
        k_hat: Pareto shape of each datum's largest importance weights (`pareto_k`), shape ``(N,)``, or ``None`` where
            no weights are or too few to tell. Above 0.7 the datum's value is not to be trusted.

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
    k_hat: Tensor | None = None

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

    @property
    def untrusted(self) -> float | None:
        """The share of data whose `k_hat` is above 0.7 or undetermined; ``None`` without `k_hat`."""
        return None if self.k_hat is None else float((~(self.k_hat <= TRUSTED)).double().mean())

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
        k_hat = None if self.k_hat is None else float(self.k_hat.median())
        return {
            "name": self.name.split(" ")[0],
            "mean": self.mean if math.isfinite(self.mean) else None,
            "standard_error": error if math.isfinite(error) else None,
            "unit": self.unit,
            "method": self.method,
            "num_data": len(self.values),
            "ess_min": None if self.ess is None else float(self.ess.min()),
            "ess_median": None if self.ess is None else float(self.ess.median()),
            "k_hat_median": k_hat if k_hat is not None and math.isfinite(k_hat) else None,
            "k_hat_above_0.7": self.untrusted,
            "text": str(self),
        }

    def __str__(self) -> str:
        """Print as in ``NLL <= 82.14 +- 0.07 nats (IS, 5000 samples, 10000 images)``.

        Two decimals, as tables have; more where the standard error would otherwise print as zero. Where the importance
        weights of some data are not to be trusted it says of how many: ``(..., 10000 images, k-hat > 0.7 for 12)``.
        """
        error = self.standard_error
        decimals = 2 if math.isnan(error) or error == 0 else min(6, max(2, -math.floor(math.log10(error))))
        count = len(self.values)
        noun = self.noun if count == 1 else {"datum": "data"}.get(self.noun, f"{self.noun}s")
        number = f"{self.mean:.{decimals}f} +- {error:.{decimals}f} {self.unit}"
        doubt = f", k-hat > {TRUSTED:g} for {round(count * self.untrusted)}" if self.untrusted else ""
        return f"{self.name} {number} ({self.method}, {count} {noun}{doubt})"
