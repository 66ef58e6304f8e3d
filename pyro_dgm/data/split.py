# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One part of a data set (train, valid or test): integer tensors, checked before anything is trained on them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Data and, where there are any, their labels.

    Args:
        x: Integers 0..levels-1, shape ``(N, *shape)``.
        labels: Class of each datum, shape ``(N,)`` and dtype int64, or ``None``.
    """

    x: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: slice | Tensor) -> "Split":
        """Select data with their labels, by a slice or by a tensor of indices."""
        return Split(self.x[index], None if self.labels is None else self.labels[index])

    def to(self, device: torch.device | str) -> "Split":
        """Move both tensors to a device."""
        return Split(self.x.to(device), None if self.labels is None else self.labels.to(device))

    def checked(self, who: str, *, levels: int) -> "Split":
        """Return the same data as uint8 (int64 for more than 256 levels) after checking what models rely on.

        Raises:
            TypeError: The data or labels are not integers.
            ValueError: No data, a value outside 0..levels-1, or labels of another length.
        """
        return Split(_checked_data(self.x, who, levels), _checked_labels(self.labels, len(self.x), who))


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
    return (x.to(torch.uint8) if levels <= 256 else x.to(torch.int64)).contiguous()


def _checked_labels(labels: Tensor | None, size: int, who: str) -> Tensor | None:
    if labels is None:
        return None
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{who} got {labels.dtype} labels: integers were needed. Try labels.to(torch.int64).")
    if tuple(labels.shape) != (size,):
        raise ValueError(f"{who} got labels of shape {tuple(labels.shape)} for {size} data: ({size},) was needed.")
    return labels.to(torch.int64)
