# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""WineQuality: eleven chemical measurements of Portuguese wines."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch

from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_csv
from pyro_dgm.data.table import Table

_SPLIT_SEED = 0  # never change it: the split is what makes numbers comparable
_HOME = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/"
_NOTE = (
    "values were rounded when they were measured and some rows occur several times, so that a flexible density gains "
    "from spikes; no split is published"
)


class WineQuality(Table):
    """11 real numbers for each of 1599 red or 4898 white wines, standardised; labels are the tasters' marks.

    There is no official split, so the rows are shuffled first, the same way everywhere, and then split as `Table` does.

    Args:
        variant: ``"red"`` or ``"white"``.
        root: Folder with ``uci/winequality-red.csv`` or ``uci/winequality-white.csv``. See `fetch` for where they are
            looked for otherwise.

    Source: Cortez et al., Modeling Wine Preferences by Data Mining from Physicochemical Properties (Decision Support
    Systems, 2009); as a density: Uria, Murray & Larochelle (NeurIPS 2013), arXiv:1306.0186, section 4.1, who leave
    columns out and average over ten splits.
    """

    FILES: ClassVar[Mapping[str, Copy]] = {
        "red": Copy(
            "uci/winequality-red.csv",
            "sha256:4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
            (_HOME + "winequality-red.csv",),
        ),
        "white": Copy(
            "uci/winequality-white.csv",
            "sha256:76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
            (_HOME + "winequality-white.csv",),
        ),
    }

    def __init__(self, *, variant: Literal["red", "white"] = "white", root: Path | str | None = None) -> None:
        if variant not in self.FILES:
            raise ValueError(f"WineQuality got variant={variant!r}: 'red' or 'white' was needed.")
        columns, values = read_csv(*fetch(f"WineQuality(variant={variant!r})", [self.FILES[variant]], root=root))
        super().__init__(
            torch.from_numpy(values[:, :-1].copy()),
            labels=torch.from_numpy(values[:, -1]).to(torch.int64),
            columns=columns[:-1],
            seed=_SPLIT_SEED,
            name=f"WineQuality-{variant}",
            licence="CC BY 4.0 (UCI)",
            source="https://archive.ics.uci.edu/dataset/186",
            citation="Cortez et al., Decision Support Systems 47, 2009",
            note=_NOTE,
        )
