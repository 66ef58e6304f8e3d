# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, and the errors of a disk say what was written."""

import errno
import os
import resource

import pytest

from pyro_dgm.train.durable import explained, replace_file, write_folder


def no_space(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_holds_what_was_written(tmp_path):
    write_folder(tmp_path / "new", {"a": b"1", "b": b"22"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"a": b"1", "b": b"22"}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_nothing_is_left_of_a_folder_that_failed(tmp_path, monkeypatch, call):
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "new", {"a": b"1"})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [] or call == "open"  # the last sync fails after the folder is complete


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_file(path, bytes(10_000))
        with pytest.raises(OSError, match="File too large"):
            write_folder(tmp_path / "new", {"a": bytes(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_explained_error_keeps_its_number_and_names_the_folder(tmp_path):
    with pytest.raises(
        OSError, match="Cannot write to the run folder .*: No space left on device. Make room."
    ) as caught:
        with explained(tmp_path, "Make room."):
            no_space()
    assert caught.value.errno == errno.ENOSPC
