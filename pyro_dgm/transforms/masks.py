# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which elements a coupling leaves as they are, and which it changes: lists of indices, or a chessboard of pixels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


class IndexMask(nn.Module):
    """Part the elements of a vector, or the channels of an image, by their indices.

    Args:
        shape: Shape of an event: ``(D,)`` or ``(C, H, W)``.
        passes: For each element or channel, whether it passes through unchanged.

    Attributes:
        kept_shape: Shape of what passes, which the network sees.
        moved_shape: Shape of what is changed.
    """

    kept: Tensor
    moved: Tensor
    back: Tensor

    def __init__(self, shape: Shape, passes: Sequence[bool]) -> None:
        super().__init__()
        kept, moved = ([i for i, passing in enumerate(passes) if passing is side] for side in (True, False))
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long))  # the mask is in the state_dict, as indices
        self.register_buffer("moved", torch.tensor(moved, dtype=torch.long))
        self.register_buffer("back", torch.tensor(kept + moved).argsort())
        self.ordered = kept + moved == list(range(len(kept + moved)))
        self.kept_shape, self.moved_shape = (len(kept), *shape[1:]), (len(moved), *shape[1:])
        self.along = -len(shape)

    def part(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give what passes, what is to be changed, and what the network may see."""
        if self.ordered:
            kept, moved = x.split([self.kept_shape[0], self.moved_shape[0]], self.along)
        else:
            kept, moved = x.index_select(self.along, self.kept), x.index_select(self.along, self.moved)
        return kept, moved, kept

    def see(self, kept: Tensor) -> Tensor:
        """Give what the network may see of what passes."""
        return kept

    def whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        """Put both parts together."""
        y = torch.cat([kept, moved], self.along)
        return y if self.ordered else y.index_select(self.along, self.back)

    def join(self, kept: Tensor, moved: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        """Put both parts together; with the sum of the log-determinants of the elements."""
        return self.whole(kept, moved), logdet.sum(list(range(self.along, 0)))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- torch's signature
        super()._load_from_state_dict(*args, **kwargs)
        if not self.back.is_meta:  # there nothing was loaded
            self.ordered = bool((self.back[1:] > self.back[:-1]).all())


class Checkerboard(nn.Module):
    """Part the pixels of an image like the fields of a chessboard, one colour of which passes through unchanged.

    Args:
        shape: Shape ``(C, H, W)`` of an event.
        odd: Whether the pixels pass whose row and column add up to an odd number, instead of an even one.

    Attributes:
        kept_shape: Shape of what the network sees: all pixels, zero where they are to be changed.
        moved_shape: Shape of what is computed: all pixels, of which those that pass are not used.
    """

    passes: Tensor

    def __init__(self, shape: Shape, *, odd: bool = False) -> None:
        super().__init__()
        rows, columns = torch.arange(shape[-2]).unsqueeze(1), torch.arange(shape[-1])
        self.register_buffer("passes", (rows + columns) % 2 == int(odd))
        self.kept_shape = self.moved_shape = shape

    def part(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the image twice, of which `join` takes what it needs, and what the network may see."""
        return x, x, self.see(x)

    def see(self, kept: Tensor) -> Tensor:
        """Give what the network may see of an image: the pixels that pass, the others zero."""
        return torch.where(self.passes, kept, 0)

    def whole(self, kept: Tensor, moved: Tensor) -> Tensor:
        """Put both parts together."""
        return torch.where(self.passes, kept, moved)

    def join(self, kept: Tensor, moved: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        """Put both parts together; with the sum of the log-determinants of the pixels that were changed."""
        return self.whole(kept, moved), torch.where(self.passes, 0, logdet).sum((-3, -2, -1))


Mask = IndexMask | Checkerboard
