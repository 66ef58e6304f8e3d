# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""MiniBooNE: 43 measurements of particle collisions, a usual benchmark of density estimators."""

from pathlib import Path
from typing import ClassVar, Literal

from pyro_dgm.data.files import Copy, fetch
from pyro_dgm.data.formats import read_npy
from pyro_dgm.data.table import Table

_SHAPE = (36488, 43)
_NOTE = "the first 1523 of 36488 rows: log-likelihoods are not comparable with published ones"


class MiniBooNE(Table):
    """43 real numbers for each of 36 488 electron neutrino events, in the published order, split and standardisation.

    Rows keep their order, the last tenth is for testing, the last tenth of the others for validation, and columns are
    standardised by all but the test rows.

    Args:
        variant: ``"full"``, or ``"first1523"``: the first rows, for tests and tutorials; log-likelihoods on them are
            not comparable with published ones.
        root: Folder with ``miniboone/data.npy``, as the programs of Papamakarios et al. prepared it, or with
            ``miniboone/miniboone_first1523.npy``. No checksum of the former is known to us: its shape and type are
            checked instead. See `fetch` for where they are looked for otherwise.

    Source: Roe et al. (UCI, 2010), as prepared by Papamakarios, Pavlakou & Murray (NeurIPS 2017), arXiv:1705.07057,
    appendix D.
    """

    FULL: ClassVar[Copy] = Copy("miniboone/data.npy", None)
    SAMPLE: ClassVar[Copy] = Copy(
        "miniboone/miniboone_first1523.npy",
        "sha256:39000ad98addde291f288293d8b78a5e87e85c726ed41e66f8330b741aadd264",
    )

    def __init__(self, *, variant: Literal["full", "first1523"] = "full", root: Path | str | None = None) -> None:
        if variant not in ("full", "first1523"):
            raise ValueError(f"MiniBooNE got variant={variant!r}: 'full' or 'first1523' was needed.")
        full = variant == "full"
        if full:
            found = fetch("MiniBooNE", [self.FULL], root=root, others={'variant="first1523"': self.SAMPLE})
        else:
            found = fetch("MiniBooNE(variant='first1523')", [self.SAMPLE], root=root)
        x = read_npy(*found)
        if full and (x.shape != _SHAPE or x.dtype.kind != "f"):
            raise ValueError(
                f"MiniBooNE: {found[0]} has shape {x.shape} and type {x.dtype}: floats of shape {_SHAPE} were needed. "
                f"Is it another file under the same name?"
            )
        super().__init__(
            x,
            standardize="train+valid",
            name="MiniBooNE" if full else "MiniBooNE-first1523",
            licence="CC BY 4.0 (UCI)",
            source="https://archive.ics.uci.edu/dataset/199, prepared by https://github.com/gpapamak/maf",
            citation="Roe et al., MiniBooNE particle identification, UCI 2010",
            note="" if full else _NOTE,
        )
