# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""TableFile: a table of your own, from a text file with a number in each cell or from an array that numpy saved."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_dgm.data.formats import read_csv, read_npy
from pyro_dgm.data.table import Standardize, Table


class TableFile(Table):
    """Real numbers in a ``.csv`` or ``.npy`` file as a `Dataset`, one row for each datum.

    Cells of a text file are separated by commas, semicolons or tabs; the first line may name the columns. See `Table`
    for the split and the standardisation.

    Args:
        path: The file; ``.npy`` for an array of shape ``(N, D)``, anything else for text.
        drop: Columns to leave out, by name, or by number from 0 where they have none: what is no measured quantity
            (an identifier, a class), and what is constant.
        standardize: ``"train"``, ``"train+valid"`` or ``"none"``: by which rows.
        seed: Shuffle the rows before they are split; ``None`` keeps their order.
        licence: Terms of use.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A cell that is no number, NaN or an infinity (with the rows), a column that is constant, a column to
            drop that is not there, or too few rows.
    """

    def __init__(
        self,
        *,
        path: Path | str,
        drop: Sequence[str] = (),
        standardize: Standardize = "train",
        seed: int | None = None,
        licence: str = "not stated",
    ) -> None:
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"TableFile got path={str(path)!r}, which is not a file.")
        if path.suffix == ".npy":
            x = read_npy(str(path), path.read_bytes())
            columns = [str(number) for number in range(x.shape[1] if x.ndim == 2 else 0)]
        else:
            columns, x = read_csv(str(path), path.read_bytes())
        missing = [column for column in drop if column not in columns]
        if missing:
            raise ValueError(f"TableFile: {path} has no column {', '.join(missing)} to drop. It has: {columns}.")
        kept = [number for number, column in enumerate(columns) if column not in drop]
        super().__init__(
            np.ascontiguousarray(x[:, kept]) if drop else x,
            columns=[columns[number] for number in kept],
            standardize=standardize,
            seed=seed,
            name=path.stem,
            licence=licence,
            source=path.name,
        )
