# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Early stopping: training ends when the validation loss has not improved for a number of epochs."""

import math
from typing import Any


class EarlyStopping:
    """Remember the best validation loss and count the epochs since.

    Args:
        patience: After how many epochs without improvement to stop; None for never.

    Raises:
        ValueError: If ``patience`` is not positive.
    """

    def __init__(self, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience={patience}: it is a number of epochs, at least 1, or None for no early stop.")
        self.patience = patience
        self.best, self.waited = math.inf, 0
        self.best_epoch: int | None = None

    def update(self, loss: float, *, epoch: int) -> bool:
        """Take in the loss of an epoch; do not call this for epochs within the warm-up, whose losses do not count.

        Args:
            loss: The validation loss, in nats per datum.
            epoch: The epoch, counted from 1.

        Returns:
            Whether it is the best so far.
        """
        if loss < self.best:
            self.best, self.best_epoch, self.waited = loss, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Collect what is needed to continue."""
        return {name: getattr(self, name) for name in ("best", "best_epoch", "waited")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        for name in ("best", "best_epoch", "waited"):
            setattr(self, name, state[name])
