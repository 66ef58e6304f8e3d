# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Each format is read as it was written, and a damaged file is an error that names it."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pyro_dgm.data import formats


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def npz(**values):
    file = io.BytesIO()
    np.savez_compressed(file, **values)
    return file.getvalue()


def mat(**values):
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, values, do_compression=True)
    return file.getvalue()


def cifar(records, name="folder/batch.bin"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(records)
        archive.addfile(info, io.BytesIO(records))
    return file.getvalue()


@given(arrays(np.uint8, array_shapes(max_dims=4, max_side=5)), st.booleans())
def test_idx_round_trip(values, packed):
    data = idx(values)
    name, data = ("x.gz", gzip.compress(data)) if packed else ("x", data)
    np.testing.assert_array_equal(formats.read_idx(name, data), values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with"),
        (b"\0\0\x0d\1\0\0\0\1....", "begins with"),
        (b"\0\0\x08\0", "begins with"),
        (idx(np.zeros((3, 2), np.uint8))[:-1], "cut off"),
        (idx(np.zeros((3, 2), np.uint8)) + b"!", "has 7 values"),
        (idx(np.zeros((3, 2), np.uint8))[:6], "cut off"),
    ],
)
def test_damaged_idx(data, message):
    with pytest.raises(ValueError, match=message):
        formats.read_idx("train-images", data)


@given(st.integers(0, 60))
def test_a_gzip_file_cut_anywhere_is_an_error(end):
    whole = gzip.compress(idx(np.arange(200, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"images.gz \(\d+ bytes\) is cut off|begins with b''"):
        formats.read_idx("images.gz", whole[:end])


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(7)), elements=st.integers(0, 1)), st.booleans())
def test_amat_round_trip(bits, packed):
    text = "".join(" ".join(map(str, row)) + "\n" for row in bits.tolist()).encode()
    name, data = ("x.amat.gz", gzip.compress(text)) if packed else ("x.amat", text)
    np.testing.assert_array_equal(formats.read_amat(name, data, width=7), bits)


@pytest.mark.parametrize("text", [b"", b"0 1\n0 1", b"0 2\n", b"0,1\n", b"0 1 0 1\n", b"0.1\n"])
def test_damaged_amat(text):
    with pytest.raises(ValueError, match="x.amat"):
        formats.read_amat("x.amat", text, width=2)


def test_mat_gives_only_what_was_asked_for():
    data = mat(a=np.arange(6, dtype=np.uint8).reshape(2, 3), b=np.ones(1))
    found = formats.read_mat("x.mat", data, keys=["a"])
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "data",
    [b"", b"no matlab file", mat(a=np.arange(999))[:200], mat(b=np.ones(1))],
    ids=["empty", "no matlab file", "cut off", "another name"],
)
def test_damaged_mat(data):
    with pytest.raises(ValueError, match="x.mat"):
        formats.read_mat("x.mat", data, keys=["a"])


def test_npz_gives_what_was_asked_for_or_everything():
    data = npz(a=np.arange(3), b=np.arange(2))
    assert list(formats.read_npz("x.npz", data, keys=["b"])) == ["b"]
    assert sorted(formats.read_npz("x.npz", data)) == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip file", npz(a=np.arange(99))[:80], npz(b=np.ones(1)), npz(a=np.array([{}], dtype=object))],
    ids=["empty", "other", "cut", "lacks", "pickled"],
)
def test_damaged_npz(data):
    with pytest.raises(ValueError, match="x.npz"):
        formats.read_npz("x.npz", data, keys=["a"])


def test_a_plain_npy_is_not_an_npz():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    with pytest.raises(ValueError, match="x.npz"):
        formats.read_npz("x.npz", file.getvalue(), keys=["a"])


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@given(arrays(np.float64, array_shapes(max_dims=3, max_side=4)))
def test_npy_round_trip(values):
    np.testing.assert_array_equal(formats.read_npy("x.npy", npy(values)), values)


@pytest.mark.parametrize(
    "data",
    [b"", b"no array", npy(np.arange(99))[:200], npz(a=np.ones(1)), npy(np.array([{}], dtype=object))],
    ids=["empty", "other", "cut", "several", "pickled"],
)
def test_damaged_npy(data):
    with pytest.raises(ValueError, match="x.npy"):
        formats.read_npy("x.npy", data)


@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=4), elements=st.floats(-1e9, 1e9)),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_round_trip(values, delimiter, named, end):
    names = [f'"column {number}"' for number in range(values.shape[1])]
    lines = ([delimiter.join(names)] if named else []) + [delimiter.join(map(repr, row)) for row in values.tolist()]
    columns, found = formats.read_csv("x.csv", (end.join(lines) + end).encode())
    np.testing.assert_array_equal(found, values)
    assert columns == [name.strip('"') if named else str(number) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "1 columns by its first line, and no such rows"),
        (b"a,b\n", "2 columns by its first line, and no such rows"),
        (b"a,b\n1,2\n3\n", "each line of one length"),
        (b"a,b\n1,2\n3,\n", "at row 1, column 2"),
        (b"a,b\n1,2\n3,four\n", "'four'"),
        (b"a,b,c\n1,2\n", "3 columns by its first line"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_what_is_no_table_of_numbers(text, message):
    with pytest.raises(ValueError, match=f"x.csv.*{message}"):
        formats.read_csv("x.csv", text)


def test_cifar_records():
    records = np.arange(2 * 3073).astype(np.uint8)
    x, labels = formats.read_cifar("c.tar.gz", cifar(records.tobytes()), members=["folder/batch.bin"])
    assert x.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(labels, records[[0, 3073]])
    np.testing.assert_array_equal(x[1].reshape(-1), records[3074:])


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", cifar(bytes(3073))[:50], cifar(bytes(3072)), cifar(bytes(3073), "other")],
    ids=[
        "empty",
        "no archive",
        "cut off",
        "part of a record",
        "another member",
    ],  # not their bytes: gzip has the time in it
)
def test_damaged_cifar(data):
    with pytest.raises(ValueError, match="c.tar.gz"):
        formats.read_cifar("c.tar.gz", data, members=["folder/batch.bin"])
