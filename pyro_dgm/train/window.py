# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Collects the numbers that each step returns on their device, so that the host waits for them only now and then."""

from typing import Any

import torch
from torch import Tensor


class Window:
    """The scalars of the last steps, one row per step, read all at once.

    Args:
        length: Number of rows.
    """

    def __init__(self, length: int) -> None:
        self.length, self.filled = length, 0
        self.names: list[str] = []
        self.rows: Tensor | None = None

    @property
    def full(self) -> bool:
        """Whether it must be read before the next step."""
        return self.filled >= self.length

    def add(self, values: dict[str, Tensor]) -> None:
        """Append a step's scalars; nothing is read from the device.

        Args:
            values: 0-dim tensors, of the same names at every step, ``loss`` among them.

        Raises:
            ValueError: If the names differ from those of the step before, or there is no ``loss``.
        """
        if list(values) != self.names:
            self._name(values)
        row = torch.stack([value.detach() for value in values.values()])
        if self.rows is None:
            self.rows = row.new_empty((self.length, len(row)))
        self.rows[self.filled] = row  # a copy: a captured step returns the same tensors every time
        self.filled += 1

    def read(self) -> Tensor:
        """Fetch the rows, shape ``(filled, names)``, to the host in float64."""
        if self.rows is None:
            return torch.empty(0, 0, dtype=torch.float64)
        return self.rows[: self.filled].cpu().double()

    def clear(self) -> None:
        """Begin anew."""
        self.filled = 0

    def latest(self) -> dict[str, float]:
        """Fetch the newest row, or nothing if there is none."""
        if not self.filled or self.rows is None:
            return {}
        return dict(zip(self.names, self.rows[self.filled - 1].tolist(), strict=True))

    def first_bad(self, rows: Tensor) -> int | None:
        """Find the first row whose loss or gradient norm is NaN or infinite.

        Args:
            rows: From `read`.
        """
        watched = [i for i, name in enumerate(self.names) if name in ("loss", "grad_norm")]
        bad = (~rows[:, watched].isfinite()).any(1).nonzero()
        return int(bad[0]) if len(bad) else None

    def state_dict(self) -> dict[str, Any]:
        """Collect the rows that were not cleared yet."""
        return {"names": self.names, "rows": None if self.rows is None else self.rows[: self.filled]}

    def load_state_dict(self, state: dict[str, Any], *, device: torch.device) -> None:
        """Continue from a state that `state_dict` gave, on a device."""
        self.names, rows = list(state["names"]), state["rows"]
        self.rows, self.filled = None, 0
        if rows is not None:
            self.rows = rows.new_empty((max(self.length, len(rows)), rows.shape[1]), device=device)
            self.rows[: len(rows)], self.filled = rows.to(device), len(rows)

    def _name(self, values: dict[str, Tensor]) -> None:
        if "loss" not in values:
            raise ValueError(f"A step must return its 'loss', but it returned only {sorted(values)}.")
        if self.names:
            raise ValueError(
                f"A step returned {list(values)}, but earlier ones returned {self.names}: names must not change."
            )
        self.names = list(values)
