# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Reading file formats: bytes that were checked become numpy arrays, and no file is ever unpickled."""

import gzip
import io
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_IDX_UINT8 = 8  # the type code of unsigned bytes, third byte of an IDX file


def gunzip(name: str, data: bytes) -> bytes:
    """Decompress if the name ends in ``.gz``, else give the bytes back.

    Raises:
        ValueError: The file is cut off or is no gzip file.
    """
    if not name.endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{name} ({len(data)} bytes) is cut off or is not a gzip file: {error}. Download it again."
        ) from error


def read_idx(name: str, data: bytes) -> NDArray[np.uint8]:
    """Read unsigned bytes in the IDX format of MNIST: a big-endian header (0, 0, type, rank, sizes), then the values.

    Raises:
        ValueError: Another type, or more or fewer values than the header says.
    """
    data = gunzip(name, data)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8 or data[3] == 0:
        raise ValueError(f"{name} begins with {data[:4]!r}: an IDX file of unsigned bytes begins with 0, 0, 8, rank.")
    header, values = data[4 : 4 + 4 * data[3]], np.frombuffer(data[4 + 4 * data[3] :], dtype=np.uint8)
    shape = tuple(size for (size,) in struct.iter_unpack(">I", header[: len(header) // 4 * 4]))
    if len(shape) != data[3] or math.prod(shape) != values.size:
        raise ValueError(f"{name} says its shape is {shape} but has {values.size} values: it is cut off or damaged.")
    return values.reshape(shape)


def read_amat(name: str, data: bytes, *, width: int) -> NDArray[np.uint8]:
    r"""Read Larochelle's text of bits, one datum a line (``"0 1 ... 0\n"``), into shape (N, width).

    Raises:
        ValueError: A line of another width or a character that is no bit.
    """
    text = np.frombuffer(gunzip(name, data), dtype=np.uint8)
    if text.size == 0 or text.size % (2 * width):
        raise ValueError(f"{name} has {text.size} characters: a multiple of {2 * width} was needed. Is it cut off?")
    pairs = text.reshape(-1, width, 2)
    bits = pairs[:, :, 0] - ord("0")
    if (bits > 1).any() or (pairs[:, :-1, 1] != ord(" ")).any() or (pairs[:, -1, 1] != ord("\n")).any():
        raise ValueError(f"{name} is not lines of {width} bits with a space between them.")
    return bits


def read_mat(name: str, data: bytes, *, keys: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Read some variables of a MATLAB file (version 5, not pickled).

    Raises:
        ValueError: The file is damaged or lacks a variable.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(io.BytesIO(data), variable_names=list(keys))
    except Exception as error:  # scipy raises half a dozen kinds on damaged files
        raise ValueError(f"{name} ({len(data)} bytes) is not a complete MATLAB file: {error}") from error
    return _select(name, {key: value for key, value in found.items() if isinstance(value, np.ndarray)}, keys)


def read_npz(name: str, data: bytes, *, keys: Sequence[str] = ()) -> dict[str, NDArray[np.generic]]:
    """Read arrays (all of them, if no keys are given) of a numpy file without unpickling anything.

    Raises:
        ValueError: The file is damaged, lacks an array, or holds Python objects.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {key: archive[key] for key in archive.files if key in keys or not keys}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{name} ({len(data)} bytes) is not a readable .npz file of plain arrays: {error}") from error
    return _select(name, found, keys)


def read_cifar(name: str, data: bytes, *, members: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read members of CIFAR-10's binary tar: records of one label and 3x32x32 bytes, images of shape (N, 3, 32, 32).

    Raises:
        ValueError: The archive is damaged, lacks a member, or a member is not whole records.
    """
    size = 1 + 3 * 32 * 32
    parts = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in members:
                file = archive.extractfile(member)
                parts.append(b"" if file is None else file.read())
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name} ({len(data)} bytes) is not the complete binary archive: {error}") from error
    for member, part in zip(members, parts, strict=True):
        if not part or len(part) % size:
            raise ValueError(f"{name}: {member} has {len(part)} bytes: whole records of {size} bytes were needed.")
    records = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(-1, size)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def read_npy(name: str, data: bytes) -> NDArray[np.generic]:
    """Read the one array of a numpy file without unpickling anything.

    Raises:
        ValueError: The file is damaged or holds Python objects.
    """
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{name} ({len(data)} bytes) is not a readable .npy file of numbers: {error}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{name} holds several arrays: one array, as numpy.save writes it, was needed.")
    return found


def read_csv(name: str, data: bytes) -> tuple[list[str], NDArray[np.float64]]:
    """Read a table of numbers with ``,``, ``;`` or tabs between them; a first line of words names the columns.

    Returns:
        The names (``"0"``, ``"1"`` ... without a first line of names), and numbers of shape ``(rows, columns)``.

    Raises:
        ValueError: No numbers, a cell that is none, or lines of different lengths.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} ({len(data)} bytes) is not text: {error}.") from error
    first, _, rest = text.partition("\n")
    first = first.strip()
    delimiter = max(",;\t", key=first.count)
    cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
    named = not all(map(_is_number, cells))
    body = rest if named else text
    try:
        values = np.empty((0, 0))
        if body.strip():
            values = np.loadtxt(io.StringIO(body), delimiter=delimiter, comments=None, quotechar='"', ndmin=2)
    except ValueError as error:
        raise ValueError(f"{name} is no table of numbers, each line of one length: {error}") from error
    if values.shape[1] != len(cells):
        raise ValueError(f"{name} has {len(cells)} columns by its first line, and no such rows of numbers below it.")
    return cells if named else [str(number) for number in range(len(cells))], values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _select(name: str, found: dict[str, NDArray[np.generic]], keys: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}: is it another file under the same name?")
    return {key: found[key] for key in (keys or found)}
