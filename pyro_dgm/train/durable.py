# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Writes files so that a kill or a power cut leaves the old ones or the new ones, never half of one."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"
"""Start of the name of whatever is not finished; such a thing may be deleted at any time."""


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files that appears at once, complete and on the disk.

    Args:
        folder: Where it is to appear; there must be nothing yet.
        files: Contents by file name.

    Raises:
        OSError: If it cannot be written. Nothing is left behind then.
    """
    unfinished = folder.with_name(f"{TEMPORARY}{folder.name}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        for name, content in files.items():
            _write(unfinished / name, content)
        _sync(unfinished)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync(folder.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put new content in the place of a file's old one, at once.

    Args:
        path: The file, which need not exist.
        content: All of its new content.

    Raises:
        OSError: If it cannot be written. The old content stays then.
    """
    unfinished = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        _write(unfinished, content)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process has left unfinished in a folder, in which nobody else may be writing.

    Args:
        folder: The folder, which need not exist.

    Raises:
        OSError: If it cannot be changed.
    """
    for unfinished in folder.glob(f"{TEMPORARY}*"):
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink()


@contextmanager
def explained(folder: Path, advice: str) -> Iterator[None]:
    """Make an error of the file system say what was being written, and what to do.

    Args:
        folder: What is being written to.
        advice: A sentence that is added to the message.

    Raises:
        OSError: As the one that came, with the same number, e.g. `errno.ENOSPC`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot write to the run folder {folder}: {reason}. {advice}") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
