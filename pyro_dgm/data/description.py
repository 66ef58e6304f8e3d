# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a data set is: shape, levels, sizes, binarisation, licence and source, in one immutable record."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Binarization = Literal["static", "dynamic", "none"]

BINARIZATION_SEED = 777
"""Where the seeds (this one and the next two: train, valid, test) of bits that are drawn only once begin."""

_POLICY = {
    "static": "binarised once and for all",
    "dynamic": "train binarised anew in every epoch, valid and test once and for all",
    "none": "not binarised",
}


@dataclass(frozen=True, eq=False)
class Sizes(Mapping[str, int]):
    """Number of data in each split: an immutable mapping that also has attributes.

    >>> sizes = Sizes(train=50000, valid=10000, test=10000)
    >>> sizes["valid"], sizes.test, sizes == {"train": 50000, "valid": 10000, "test": 10000}
    (10000, 10000, True)
    """

    train: int
    valid: int
    test: int

    def __getitem__(self, split: str) -> int:
        if split not in ("train", "valid", "test"):
            raise KeyError(f"Sizes has train, valid and test, but no {split!r}")
        return int(getattr(self, split))

    def __iter__(self) -> Iterator[str]:
        return iter(("train", "valid", "test"))

    def __len__(self) -> int:
        return 3

    def __hash__(self) -> int:
        return hash((self.train, self.valid, self.test))


@dataclass(frozen=True, kw_only=True)
class Description:
    """Immutable description of a data set; ``str()`` of it is one line for logs and tables.

    Args:
        name: Name, with the variant where there are several (``"FashionMNIST-sprite900"``).
        shape: Shape of one datum, ``(H, W)`` or ``(C, H, W)`` for images.
        levels: Number of integer values that a *model* sees for each dimension: 2 after binarisation; ``None`` for real
            numbers.
        grey_levels: Number of integer values in the *file*: 256 for bytes; ``None`` for real numbers.
        sizes: Number of data in train, valid and test.
        binarization: ``"static"`` (fixed bits), ``"dynamic"`` (training bits drawn anew in every epoch) or ``"none"``.
        licence: Terms of use as stated by the origin, or that none are stated.
        source: Where the bytes come from.
        citation: What to cite.
        note: What makes numbers on these data incomparable to published ones; empty where nothing does.
        unit: In what units real numbers are: a log-density shifts with them.

    >>> print(Description(name="Bits", shape=(8, 8), levels=2, grey_levels=2, sizes=Sizes(8, 1, 1),
    ...                   binarization="static", licence="CC0", source="a coin", citation=""))
    Bits: 8x8, 2 levels (binarised once and for all), 8 train + 1 valid + 1 test; licence: CC0; source: a coin
    """

    name: str
    shape: tuple[int, ...]
    levels: int | None
    grey_levels: int | None
    sizes: Sizes
    binarization: Binarization
    licence: str
    source: str
    citation: str
    note: str = ""
    unit: str = ""

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        grey = f"from {self.grey_levels} grey levels, " if self.grey_levels != self.levels else ""
        kind = f"{self.levels} levels ({grey}{_POLICY[self.binarization]})"
        if self.levels is None:
            kind = f"real numbers ({self.unit or 'in units of their own'})"
        parts = [
            f"{self.name}: {shape}, {kind}, " + " + ".join(f"{size} {split}" for split, size in self.sizes.items()),
            f"licence: {self.licence}",
            f"source: {self.source}",
        ]
        return "; ".join([*parts, f"NOTE: {self.note}"] if self.note else parts)
