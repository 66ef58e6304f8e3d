# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A text file or an array of one's own becomes a table, or an error that names the file."""

import numpy as np
import pytest
import torch

from pyro_dgm.data import TableFile

X = np.random.RandomState(0).randn(40, 3)


def write(path, header="a;b;c"):
    lines = [header] * bool(header) + [";".join(map(repr, row)) for row in X.tolist()]
    path.write_text("\n".join(lines))
    return path


def test_text_and_array_give_the_same(tmp_path):
    np.save(tmp_path / "mine.npy", X)
    array = TableFile(path=tmp_path / "mine.npy")
    text = TableFile(path=str(write(tmp_path / "mine.csv")), licence="CC0")
    assert torch.equal(array.train.x, text.train.x)
    assert (text.description.name, text.description.source, text.description.licence) == ("mine", "mine.csv", "CC0")
    assert text.description.sizes == {"train": 33, "valid": 3, "test": 4}


def test_columns_can_be_dropped(tmp_path):
    named = TableFile(path=write(tmp_path / "mine.txt"), drop=["b"], standardize="none")
    assert torch.equal(named.test.x, torch.from_numpy(X[-4:, [0, 2]]).float())
    numbered = TableFile(path=write(tmp_path / "mine.csv", header=""), drop=["1"], standardize="none")
    assert torch.equal(numbered.test.x, named.test.x)
    np.save(tmp_path / "mine.npy", X)
    assert torch.equal(TableFile(path=tmp_path / "mine.npy", drop=("1",), standardize="none").test.x, named.test.x)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("typo.csv", {}, FileNotFoundError, "which is not a file"),
        ("mine.csv", {"drop": ["d"]}, ValueError, r"mine.csv has no column d to drop. It has: \['a', 'b', 'c'\]"),
        ("mine.csv", {"drop": ["a", "b", "c"]}, ValueError, r"shape \(40, 0\)"),
        ("constant.npy", {}, ValueError, "same number in all 33 rows of column 0, 1, 2"),
        ("missing.npy", {}, ValueError, "missing got NaN or infinite values in 1 of 40 rows: 5 "),
        ("cube.npy", {}, ValueError, r"cube got data of shape \(2, 2, 2\)"),
    ],
)
def test_what_is_no_table_is_an_error(tmp_path, name, options, error, message):
    write(tmp_path / "mine.csv")
    np.save(tmp_path / "constant.npy", np.ones((40, 3)))
    np.save(tmp_path / "missing.npy", np.where(np.arange(40)[:, None] == 5, np.nan, X))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    with pytest.raises(error, match=message):
        TableFile(path=tmp_path / name, **options)
