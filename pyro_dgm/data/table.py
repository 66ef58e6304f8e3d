# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Table: rows of real numbers, split by their order and standardised column by column."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.split import Split, checked_reals

Standardize = Literal["train", "train+valid", "none"]


class Table(Dataset):
    r"""Real numbers of shape ``(N, D)`` as a `Dataset`, for density estimation.

    The last tenth of the rows is for testing, the last tenth of the others for validation. Columns are standardised,

    .. math:: x_d = (r_d - \mu_d) / \sigma_d, \qquad \log p(r) = \log p(x) - \sum_d \log \sigma_d

    with :math:`\mu, \sigma` (not bias-corrected) of a part of the rows r, so that log-densities are of standardised
    rows: subtract :attr:`log_det` for those of the rows that were given.

    Args:
        x: Real numbers, shape ``(N, D)``.
        labels: Integers, shape ``(N,)``, or ``None``.
        standardize: ``"train"``: by the training rows alone. ``"train+valid"``: by all but the test rows, as the
            published programs do. ``"none"``: x as it is.
        seed: Shuffle the rows before they are split; ``None`` keeps their order.
        columns: Name of each column, for the messages.
        name: Name of the data.
        licence: Terms of use.
        source: Where the data come from.
        citation: What to cite.
        note: What makes numbers on these data incomparable to published ones.

    Attributes:
        loc: Mean of each column, shape ``(D,)``, float64 on the CPU; zeros if nothing was standardised.
        scale: Standard deviation of each column, likewise; ones if nothing was standardised.
        log_det: Sum of the logs of the scales, in nats.

    Raises:
        TypeError: Integers.
        ValueError: NaN or an infinity (with the rows), a column that is constant, too few rows, or no table.

    Source: the split of Papamakarios, Pavlakou & Murray (NeurIPS 2017), arXiv:1705.07057, appendix D.

    >>> data = Table(torch.randn(100, 3) * 50 + 7)
    >>> data.description.sizes, data.train.x.mean().abs() < 1e-6
    (Sizes(train=81, valid=9, test=10), tensor(True))
    """

    def __init__(
        self,
        x: Tensor | NDArray[np.generic],
        *,
        labels: Tensor | None = None,
        standardize: Standardize = "train",
        seed: int | None = None,
        columns: Sequence[str] = (),
        name: str = "Table",
        licence: str = "not stated",
        source: str = "memory",
        citation: str = "",
        note: str = "",
    ) -> None:
        everything = Split(_rows(torch.as_tensor(x), name), labels)
        if labels is not None and len(labels) != len(everything):
            raise ValueError(f"{name} got {len(labels)} labels for {len(everything)} rows: one for each was needed.")
        everything = everything.reordered(seed)
        size = len(everything)
        test = max(1, size // 10)
        valid = max(1, (size - test) // 10)
        bounds = {"train": size - test - valid, "train+valid": size - test, "none": 0}
        if standardize not in bounds:
            raise ValueError(f"{name} got standardize={standardize!r}: 'train', 'train+valid' or 'none' was needed.")
        self.loc, self.scale = _moments(everything.x[: bounds[standardize]], everything.x, columns, name)
        self.log_det = float(self.scale.log().sum())
        everything = Split((everything.x - self.loc) / self.scale, everything.labels)
        super().__init__(
            name=name,
            grey_levels=None,
            train=everything[: size - test - valid],
            valid=everything[size - test - valid : size - test],
            test=everything[size - test :],
            licence=licence,
            source=source,
            citation=citation,
            note=note,
            unit=self._unit(standardize),
        )

    def raw(self, x: Tensor) -> Tensor:
        """Turn standardised rows, a model's dreams say, back into the units that were given.

        Args:
            x: Shape ``(*batch, D)``.

        Returns:
            The same shape, dtype and device.
        """
        return x * self.scale.to(x) + self.loc.to(x)

    def _unit(self, standardize: str) -> str:
        if standardize == "none":
            return ""
        sign = "-" if self.log_det >= 0 else "+"
        by = standardize.replace("+", " and ")
        return f"columns standardised by {by}: log p(raw row) = log p(row) {sign} {abs(self.log_det):.2f} nats"


def _rows(x: Tensor, name: str) -> Tensor:
    if x.dim() != 2 or len(x) < 3:
        raise ValueError(
            f"{name} got data of shape {tuple(x.shape)}: (N, D) with at least 3 rows was needed, so that each split "
            f"has one. `InMemory` takes data of other shapes and splits of your own."
        )
    return checked_reals(x, name).to("cpu", torch.float64)


def _moments(rows: Tensor, x: Tensor, columns: Sequence[str], name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of some rows; zeros and ones, shaped as for all rows, if there are none."""
    if columns and len(columns) != x.shape[1]:
        raise ValueError(f"{name} got {len(columns)} names for {x.shape[1]} columns: one for each was needed.")
    if len(rows) == 0:
        return x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    low, high = rows.aminmax(dim=0)
    constant = [columns[d] if columns else str(d) for d in (low == high).nonzero().flatten().tolist()]
    if constant:
        raise ValueError(
            f"{name} has the same number in all {len(rows)} rows of column {', '.join(constant)}: no density can "
            f"describe it, and nothing can standardise it. Leave such columns out."
        )
    return rows.mean(0), rows.std(0, unbiased=False)
