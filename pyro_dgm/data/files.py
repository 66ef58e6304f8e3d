# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Finding a data file: in your folder, in the cache or at its official home, and never without its checksum."""

import hashlib
import logging
import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "PYRO_DGM_DATA"
"""Environment variable that names a folder of data files; it is only ever read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """One sequence of bytes that is accepted as a file.

    Args:
        path: Where it lies inside a data folder, with slashes: ``"mnist/train-images-idx3-ubyte.gz"``.
        digest: ``"sha256:..."``, ``"md5:..."``, ``"git-blob:..."`` (the sha1 by which git lists it), or ``None`` where
            none was ever published: then the reader of the data set checks shape and range instead.
        urls: Official home and mirrors, tried in this order; none for files that cannot be downloaded.
    """

    path: str
    digest: str | None
    urls: tuple[str, ...] = ()


def fetch(
    who: str,
    copies: Sequence[Copy],
    *,
    root: Path | str | None = None,
    others: Mapping[str, Copy] | None = None,
) -> tuple[str, bytes]:
    """Find one of several equivalent copies of a file, check it, and read it.

    The folder ``root`` comes first, then the folder named by ``PYRO_DGM_DATA``; these two belong to the user and are
    never written to, so they may be read-only. Then comes the cache (``pooch.os_cache("pyro_dgm")``), which is filled
    from the copies' homes. A file appears in the cache only when it is complete and its checksum is right. A file with
    a wrong checksum is not used: in the user's folders it is an error that names it; in the cache, or fresh from the
    network, it is kept aside as ``*.rejected`` for inspection.

    Args:
        who: Name of the data set, for the messages.
        copies: What is accepted; in each folder the first one that exists is taken.
        root: Folder of data files, or ``None``.
        others: Files of other data (a sample, say), by the option that asks for them. They are never taken, only named
            in the message when nothing else is there.

    Returns:
        The path of the copy that was found (`Copy.path`), and its bytes.

    Raises:
        NotADirectoryError: ``root`` is not a folder.
        FileNotFoundError: The file is nowhere, and no home of it can be reached.
        ValueError: The only files that were found have wrong checksums.
    """
    folders = _folders(who, root)
    for folder in folders:
        for copy in copies:
            if (folder / copy.path).is_file():
                data = (folder / copy.path).read_bytes()
                wrong = _mismatch(data, copy)
                if wrong:
                    raise ValueError(
                        f"{who}: {folder / copy.path} is not the published file: {wrong}. The file is left as it is, "
                        f"but not used. Replace it, or move it away so that the file is looked for elsewhere."
                    )
                return copy.path, data
    return _cached(who, copies, folders, others or {})


def _folders(who: str, root: Path | str | None) -> list[Path]:
    if root is not None and not Path(root).expanduser().is_dir():
        raise NotADirectoryError(f"{who} got root={str(root)!r}, which is not a folder.")
    named = [root, os.environ.get(FOLDER_VARIABLE) or None]
    return [Path(folder).expanduser() for folder in named if folder is not None]


def _cached(who: str, copies: Sequence[Copy], folders: list[Path], others: Mapping[str, Copy]) -> tuple[str, bytes]:
    import pooch

    cache = Path(pooch.os_cache("pyro_dgm"))
    trouble: list[str] = []
    rejected = False
    for copy in copies:
        path = cache / copy.path
        if path.is_file():
            data = path.read_bytes()
            wrong = _mismatch(data, copy)
            if not wrong:
                return copy.path, data
            rejected = True
            trouble.append(f"{path} {wrong} and is kept as {_keep_aside(path, path)}")
        for url in copy.urls:
            try:
                return copy.path, _download(url, path, copy)
            except OSError as error:  # no network, no such page, no place to write: the next mirror may do
                trouble.append(textwrap.shorten(f"{url} failed with {type(error).__name__}: {error}", 200))
            except ValueError as error:
                rejected = True
                trouble.append(str(error))
    message = f"{who}: {_wanted(copies, folders, cache, others)} What was tried: {'; '.join(trouble) or 'nothing'}."
    raise ValueError(message) if rejected else FileNotFoundError(message)


def _download(url: str, path: Path, copy: Copy) -> bytes:
    """Download to a folder beside the target, and move it there only when it is complete and right."""
    import pooch

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        arriving = Path(folder) / path.name
        _log.info("downloading %s to %s", url, path)
        pooch.HTTPDownloader(timeout=30)(url, str(arriving), None)
        data = arriving.read_bytes()
        wrong = _mismatch(data, copy)
        if wrong:
            aside = _keep_aside(arriving, path)
            _log.warning("%s %s: kept as %s, not used", url, wrong, aside)
            raise ValueError(f"{url} {wrong} and is kept as {aside}")
        arriving.replace(path)
    return data


def _keep_aside(file: Path, path: Path) -> Path:
    aside = path.with_name(path.name + ".rejected")
    file.replace(aside)
    return aside


def _mismatch(data: bytes, copy: Copy) -> str | None:
    """Say how the bytes differ from the published ones, or give None if they do not."""
    if copy.digest is None:
        return None
    algorithm, expected = copy.digest.split(":")
    if algorithm == "git-blob":
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:
        found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    if found == expected:
        return None
    return f"has the {algorithm} {found} ({len(data)} bytes) where {expected} was expected"


def _wanted(copies: Sequence[Copy], folders: list[Path], cache: Path, others: Mapping[str, Copy]) -> str:
    names = " or ".join(copy.path for copy in copies)
    places = " or ".join(str(folder / copy.path) for folder in [*folders, cache] for copy in copies)
    here = [
        f"There is {folder / copy.path}, which is not the same data: it is used only if you ask for it by {option}."
        for option, copy in others.items()
        for folder in folders
        if (folder / copy.path).is_file()
    ]
    wanted = (
        f"no valid {names} was found. Put it at {places}, or name a folder that has it by the environment variable "
        f"{FOLDER_VARIABLE} or by root=."
    )
    return " ".join([wanted, *here])
