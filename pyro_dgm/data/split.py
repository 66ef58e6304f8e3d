# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One part of a data set (train, valid or test): a tensor, checked before anything is trained on it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_dgm.data.noise import permutation


@dataclass(frozen=True, eq=False)
class Split:
    """Data and, where there are any, their labels.

    Args:
        x: Integers 0..levels-1, or real numbers, shape ``(N, *shape)``.
        labels: Class of each datum, shape ``(N,)`` and dtype int64, or ``None``.
    """

    x: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> "Split":
        """Select data with their labels, by a slice or by a tensor of indices."""
        return Split(self.x[index], None if self.labels is None else self.labels[index])

    def reordered(self, seed: int | None) -> "Split":
        """Shuffle data with their labels, the same way everywhere for the same seed; ``None`` keeps their order."""
        return self if seed is None else self[permutation(len(self), seed)]

    def to(self, device: torch.device | str) -> "Split":
        """Move both tensors to a device."""
        return Split(self.x.to(device), None if self.labels is None else self.labels.to(device))

    def checked(self, who: str, *, levels: int | None) -> "Split":
        """Return the same data after checking what models rely on.

        Args:
            who: Whose data they are, for the messages.
            levels: Number of integer values, or ``None`` for real numbers.

        Returns:
            Integers as uint8 (int64 for more than 256 levels), real numbers in torch's default dtype.

        Raises:
            TypeError: Integers were needed and not given, or the other way round; labels are not integers.
            ValueError: No data, a value outside 0..levels-1, NaN or an infinity, or labels of another length.
        """
        if levels is None:
            x = checked_reals(self.x.to(torch.get_default_dtype()) if self.x.is_floating_point() else self.x, who)
        else:
            x = _checked_data(self.x, who, levels)
        return Split(x.contiguous(), _checked_labels(self.labels, len(self.x), who))


def checked_reals(x: Tensor, who: str) -> Tensor:
    """Give real numbers back if they are finite.

    Args:
        x: Shape ``(N, *shape)``.
        who: Whose data they are, for the messages.

    Raises:
        TypeError: Integers, which have a probability each and no density.
        ValueError: No data; NaN or an infinity, with the first rows that have one.
    """
    if not x.is_floating_point():
        raise TypeError(
            f"{who} got {x.dtype} data where real numbers were needed. Integers have probabilities and no density: "
            f"give the number of their levels. Only if they stand for measured quantities, give x.double()."
        )
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"{who} got data of shape {tuple(x.shape)}: (N, *shape) with at least one datum was needed.")
    wrong = ~x.isfinite().flatten(1).all(1)
    if wrong.any():
        rows = wrong.nonzero().flatten().tolist()
        more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        raise ValueError(
            f"{who} got NaN or infinite values in {len(rows)} of {len(x)} rows: {', '.join(map(str, rows[:5]))}{more} "
            f"(from 0). Leave these rows out, x[x.isfinite().all(1)], or fill in what is missing first."
        )
    return x


def _checked_data(x: Tensor, who: str, levels: int) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        size = x.abs()  # of complex data too
        found = (
            "with NaN" if x.isnan().any() else f"of size {size.min():g} to {size.max():g}" if x.numel() else "(empty)"
        )
        raise TypeError(
            f"{who} got {x.dtype} data {found}: integers 0..{levels - 1} were needed, because likelihoods are of "
            f"integers. Images in [0, 1] become integers by (x * {levels - 1}).round().to(torch.uint8)."
        )
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"{who} got data of shape {tuple(x.shape)}: (N, *shape) with at least one datum was needed.")
    x = x if x.dtype == torch.uint8 else x.to(torch.int64)
    low, high = (int(v) for v in x.aminmax())
    if low < 0 or high >= levels:
        raise ValueError(
            f"{who} got values from {low} to {high}: with {levels} levels they must lie in 0..{levels - 1}. "
            f"Give the number of levels that the data really have, at least {high + 1}, or rescale the data."
        )
    return x.to(torch.uint8) if levels <= 256 else x.to(torch.int64)


def _checked_labels(labels: Tensor | None, size: int, who: str) -> Tensor | None:
    if labels is None:
        return None
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{who} got {labels.dtype} labels: integers were needed. Try labels.to(torch.int64).")
    if tuple(labels.shape) != (size,):
        raise ValueError(f"{who} got labels of shape {tuple(labels.shape)} for {size} data: ({size},) was needed.")
    return labels.to(torch.int64)
