# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The history of a run: what every epoch ended with, and how the run itself ended."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What `Trainer.fit` returns.

    Attributes:
        epochs: One dictionary per finished epoch: ``epoch``, ``step``, ``beta``, ``lr``, and the epoch's means in nats
            per datum as ``train.<name>`` and ``valid.<name>``, e.g. ``train.loss`` and ``valid.loss``.
        best_epoch: The epoch with the lowest validation loss after warm-up, if there was validation.
        best_loss: That loss.
        stopped: ``"epochs"`` if all epochs were done, ``"patience"`` after early stopping, None while training goes on.
    """

    epochs: list[dict[str, int | float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_loss: float | None = None
    stopped: str | None = None

    def column(self, name: str) -> list[int | float]:
        """Give one value per epoch.

        >>> History(epochs=[{"epoch": 1, "train.loss": 9.0}, {"epoch": 2, "train.loss": 7.5}]).column("train.loss")
        [9.0, 7.5]

        Args:
            name: E.g. ``"valid.loss"``.

        Raises:
            KeyError: If the epochs have no such value; the message lists those they have.
        """
        missing = [record for record in self.epochs if name not in record]
        if missing:
            raise KeyError(f"The history has no {name!r}: it has {', '.join(sorted(missing[0]))}.")
        return [record[name] for record in self.epochs]

    def state_dict(self) -> dict[str, Any]:
        """Collect all of it as plain data."""
        return {**vars(self), "epochs": [dict(record) for record in self.epochs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        vars(self).update(state)
