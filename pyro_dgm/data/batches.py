# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Feeding a model: shuffled batches that live on the device, cost next to nothing and can be resumed to the bit."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pyro_dgm.data.binarization import Binarizer
from pyro_dgm.data.noise import permutation
from pyro_dgm.data.split import Split, checked_reals

_ORDER, _NOISE = 0, 1  # two independent streams in each epoch


class Batches:
    """Batches of a training set, in a new random order in every epoch.

    The whole set stays on its device as one tensor and a batch is an index-select: no workers, no copies from the host.
    With ``grey_levels`` each batch is binarised as it is drawn (see `Binarizer`), so every epoch sees new bits.

    Order and bits are functions of ``(seed, epoch, position)`` and of nothing else. So the state is three integers, no
    global generator is involved, and an interrupted epoch goes on with exactly the batches that were still to come.
    (The order is the same on every device; the bits drawn on a GPU are not those drawn on a CPU.)

    One loop reads at a time. A loop that was left early, by ``break`` or by a crash and `load_state_dict`, is continued
    by the next ``for``: it gives the rest of that epoch (nothing, if the last batch had been given out already).

    Args:
        x: Integers or real numbers, shape ``(N, *shape)``.
        batch_size: Data in a batch, 1 to N. The last batch of an epoch is smaller if N does not divide.
        grey_levels: Number of grey levels of x to binarise from, 2 to 256, or ``None`` to give out x as it is.
        seed: Non-negative integer.
        drop_last: Leave out the last batch of an epoch if it is smaller (other data are left out in each epoch).

    Raises:
        TypeError: Grey levels that are not integers.
        ValueError: Empty x, x outside the grey levels, NaN or an infinity, or a batch size outside 1..N.

    >>> batches = Batches(torch.arange(10).reshape(10, 1), batch_size=4)
    >>> [len(x) for x in batches], len(batches), batches.num_data, batches.epoch
    ([4, 4, 2], 3, 10, 1)
    """

    def __init__(
        self, x: Tensor, *, batch_size: int, grey_levels: int | None = None, seed: int = 0, drop_last: bool = False
    ) -> None:
        who = f"Batches(batch_size={batch_size})"
        if grey_levels is not None and not 2 <= grey_levels <= 256:
            raise ValueError(f"{who} got grey_levels={grey_levels}: 2 to 256 grey levels can be binarised.")
        if x.dtype == torch.bool:
            x = x.to(torch.uint8)
        if grey_levels is None and x.is_floating_point():
            x = checked_reals(x, who)
        elif grey_levels is not None or x.dim() < 2 or x.numel() == 0:
            x = Split(x).checked(who, levels=grey_levels or 256).x
        if not 1 <= batch_size <= len(x):
            raise ValueError(f"{who} got {len(x)} data: the batch size must lie in 1..{len(x)}.")
        if seed < 0:
            raise ValueError(f"{who} got seed={seed}: seeds must be non-negative integers.")
        self.x, self.batch_size, self.grey_levels = x, batch_size, grey_levels
        self.seed, self.drop_last = seed, drop_last
        self._epoch = 0
        self._position = 0
        self._reader = object()  # the one loop that may move the position

    @property
    def num_data(self) -> int:
        """Number of data in the set."""
        return len(self.x)

    @property
    def epoch(self) -> int:
        """Number of epochs that are complete."""
        return self._epoch

    @property
    def position(self) -> int:
        """Number of batches of the present epoch that have been given out."""
        return self._position

    def __len__(self) -> int:
        """Number of batches in a whole epoch."""
        return self.num_data // self.batch_size if self.drop_last else -(-self.num_data // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """Give out the batches of the present epoch that are still to come, each of shape ``(B, *shape)``."""
        reader = self._reader = object()
        order = permutation(self.num_data, self.seed, self._epoch, _ORDER).to(self.x.device)
        binarizer = self._binarizer()
        for chosen in order.split(self.batch_size)[self._position : len(self)]:
            x = self.x.index_select(0, chosen)
            self._position += 1
            yield x if binarizer is None else binarizer(x)
            if self._reader is not reader:
                raise RuntimeError(
                    "This loop over Batches cannot go on: another loop or load_state_dict has moved the position since "
                    "it began. Make one Batches for each loop."
                )
        self._epoch, self._position = self._epoch + 1, 0

    def _binarizer(self) -> Binarizer | None:
        if self.grey_levels is None:
            return None
        device = self.x.device
        binarizer = Binarizer(grey_levels=self.grey_levels, device=device, seed=(self.seed, self._epoch, _NOISE))
        for _ in range(self._position):  # every batch before the position was a full one, or nothing is left to draw
            binarizer.skip((self.batch_size, *self.x.shape[1:]), device)
        return binarizer

    def state_dict(self) -> dict[str, int | None]:
        """Return where the feed stands, as plain integers; what was given out last counts as used."""
        return {"seed": self.seed, "epoch": self._epoch, "position": self._position, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """Go on where another `Batches` over the same data stood.

        Raises:
            ValueError: The other one had other data, batch size or grey levels, so its batches cannot be continued.
        """
        other = {key: state.get(key) for key in self._fixed()}
        if other != self._fixed():
            raise ValueError(
                f"Batches with {self._fixed()} cannot continue a feed with {other}: its batches would be others. "
                f"Resume with the same data and options, or start a new run."
            )
        seed, epoch, position = (state.get(key) for key in ("seed", "epoch", "position"))
        if seed is None or epoch is None or position is None or min(seed, epoch, position) < 0 or position > len(self):
            raise ValueError(
                f"Batches got the state {dict(state)}: seed, epoch and position 0..{len(self)} were needed."
            )
        self.seed, self._epoch, self._position = int(seed), int(epoch), int(position)
        self._reader = object()

    def _fixed(self) -> dict[str, int | None]:
        return {
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "grey_levels": self.grey_levels,
            "drop_last": int(self.drop_last),
        }
