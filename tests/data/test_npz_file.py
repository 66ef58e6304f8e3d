# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A numpy file of one's own becomes a data set, or an error that names the file."""

import numpy as np
import pytest
import torch

from pyro_dgm.data import NpzFile

X = np.arange(120).reshape(20, 2, 3) % 7


def test_one_array_is_split(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", train=X, train_labels=np.arange(20))
    data = NpzFile(path=tmp_path / "mine.npz", levels=7)
    assert data.description.sizes == {"train": 16, "valid": 2, "test": 2}
    assert (data.description.name, data.description.source) == ("mine", "mine.npz")
    assert torch.equal(data.test.x.long(), torch.from_numpy(X)[data.test.labels])


def test_three_arrays_are_the_splits(tmp_path):
    np.savez(tmp_path / "mine.npz", train=X, valid=X[:3], test=X[:2], test_labels=np.arange(2, dtype=np.uint8))
    data = NpzFile(path=str(tmp_path / "mine.npz"), levels=7, binarization="dynamic", licence="CC0")
    assert torch.equal(data.train.x.long(), torch.from_numpy(X))
    assert data.train.labels is None
    assert data.test.labels.tolist() == [0, 1]
    assert data.description.licence == "CC0"


def test_real_numbers(tmp_path):
    np.savez(tmp_path / "mine.npz", train=X / 7)
    assert NpzFile(path=tmp_path / "mine.npz", levels=None).description.levels is None


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": X}, ValueError, r"mine.npz has \['x'\] but no 'train'"),
        ({"train": X / 6}, TypeError, r"mine\.train got torch.float64 data"),
        ({"train": X, "valid": X}, ValueError, "only one of"),
        ({"train": np.array([{}] * 5, dtype=object)}, ValueError, "plain arrays"),
    ],
)
def test_what_is_no_data_is_an_error(tmp_path, arrays, error, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(error, match=message):
        NpzFile(path=tmp_path / "mine.npz", levels=7)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        NpzFile(path=tmp_path / "typo.npz", levels=7)


def test_a_file_that_is_cut_off(tmp_path):
    np.savez(tmp_path / "mine.npz", train=X)
    whole = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "mine.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable .npz"):
        NpzFile(path=tmp_path / "mine.npz", levels=7)
