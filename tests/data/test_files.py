# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A file is used only with the right checksum, and an error says where to put the right one."""

import hashlib
import os
import re
import socket
import stat

import pytest

from pyro_dgm.data.files import Copy, fetch

GOOD, BAD = b"the published bytes", b"other bytes"
SHA256 = "sha256:" + hashlib.sha256(GOOD).hexdigest()
DIGESTS = {
    "sha256": SHA256,
    "md5": "md5:" + hashlib.md5(GOOD).hexdigest(),
    "git-blob": "git-blob:" + hashlib.sha1(b"blob 19\0" + GOOD).hexdigest(),
}
HERE = Copy("set/file", SHA256)


@pytest.fixture
def copy(site):
    return Copy("set/file", SHA256, (f"{site.address}/mirror", f"{site.address}/home"))


@pytest.mark.parametrize("kind", DIGESTS)
def test_every_kind_of_digest_accepts_the_file_and_no_other(root, put, kind):
    put("set/file", GOOD)
    assert fetch("Set", [Copy("set/file", DIGESTS[kind])], root=root) == ("set/file", GOOD)
    put("set/file", BAD)
    with pytest.raises(ValueError, match=f"is not the published file: has the {kind}"):
        fetch("Set", [Copy("set/file", DIGESTS[kind])], root=root)


def test_root_comes_before_the_variable_and_that_before_the_cache(root, put, tmp_path, cache, monkeypatch):
    any_bytes = Copy("set/file", None)
    for folder, data in ((cache, b"cache"), (tmp_path / "named", b"variable"), (root, b"root")):
        (folder / "set").mkdir(parents=True)
        (folder / "set" / "file").write_bytes(data)
    assert fetch("Set", [any_bytes])[1] == b"cache"
    monkeypatch.setenv("PYRO_DGM_DATA", str(tmp_path / "named"))
    assert fetch("Set", [any_bytes])[1] == b"variable"
    assert fetch("Set", [any_bytes], root=root)[1] == b"root"
    assert fetch("Set", [any_bytes], root=str(root))[1] == b"root"


def test_an_empty_variable_names_no_folder(monkeypatch):
    monkeypatch.setenv("PYRO_DGM_DATA", "")
    with pytest.raises(FileNotFoundError, match="What was tried: nothing"):
        fetch("Set", [HERE])


def test_the_first_copy_that_exists_is_taken(root, put):
    copies = [Copy("set/file.gz", SHA256), put("set/file", GOOD)]
    assert fetch("Set", copies, root=root) == ("set/file", GOOD)


def test_a_folder_of_the_user_is_never_written_to(root, put):
    put("set/file", BAD)
    os.chmod(root / "set" / "file", stat.S_IRUSR)
    os.chmod(root / "set", stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ValueError, match=re.escape(str(root / "set" / "file")) + ".*left as it is"):
            fetch("Set", [HERE], root=root)
        assert os.listdir(root / "set") == ["file"]
        assert (root / "set" / "file").read_bytes() == BAD
    finally:
        os.chmod(root / "set", stat.S_IRWXU)


def test_a_root_that_is_no_folder_is_an_error(root):
    with pytest.raises(NotADirectoryError, match="which is not a folder"):
        fetch("Set", [HERE], root=root / "typo")


def test_a_download_is_cached_and_happens_once(site, copy, cache):
    site["/mirror"] = GOOD
    for _ in range(2):
        assert fetch("Set", [copy]) == ("set/file", GOOD)
    assert site.asked == ["/mirror"]
    assert [path.name for path in (cache / "set").iterdir()] == ["file"]


def test_the_next_mirror_is_tried(site, copy):
    site["/home"] = GOOD
    assert fetch("Set", [copy])[1] == GOOD
    assert site.asked == ["/mirror", "/home"]


def test_a_mirror_with_other_bytes_is_kept_aside_and_not_used(site, copy, cache):
    site["/mirror"], site["/home"] = BAD, GOOD
    assert fetch("Set", [copy])[1] == GOOD
    assert (cache / "set" / "file.rejected").read_bytes() == BAD
    assert (cache / "set" / "file").read_bytes() == GOOD


def test_wrong_bytes_everywhere_are_an_error_that_names_the_file_kept_aside(site, copy, cache):
    site["/mirror"] = site["/home"] = BAD
    with pytest.raises(ValueError, match=r"sha256.*where.*was expected and is kept as.*file\.rejected"):
        fetch("Set", [copy])
    assert [path.name for path in (cache / "set").iterdir()] == ["file.rejected"]


def test_a_damaged_file_in_the_cache_is_kept_aside_and_fetched_again(site, copy, cache):
    (cache / "set").mkdir(parents=True)
    (cache / "set" / "file").write_bytes(BAD)
    site["/mirror"] = GOOD
    assert fetch("Set", [copy])[1] == GOOD
    assert (cache / "set" / "file.rejected").read_bytes() == BAD


def test_a_download_that_stops_half_way_leaves_nothing_in_the_cache(cache):
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def half() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 19\r\n\r\n" + GOOD[:9])

        thread = threading.Thread(target=half)
        thread.start()
        copy = Copy("set/file", SHA256, (f"http://127.0.0.1:{server.getsockname()[1]}/file",))
        with pytest.raises((FileNotFoundError, ValueError), match="What was tried"):
            fetch("Set", [copy])
        thread.join()
    assert not (cache / "set" / "file").exists()


def test_without_file_and_network_the_error_says_where_to_put_it(root, cache):
    copy = Copy("set/file", SHA256, ("http://127.0.0.1:9/file",))
    with pytest.raises(FileNotFoundError) as caught:
        fetch("Set", [copy], root=root)
    message = str(caught.value)
    for part in (str(root / "set" / "file"), str(cache / "set" / "file"), "PYRO_DGM_DATA", "http://127.0.0.1:9/file"):
        assert part in message


def test_other_data_are_named_but_never_taken(root, put):
    sample = put("set/sample", b"sample")
    with pytest.raises(FileNotFoundError, match=r"only if you ask for it by variant='sample'"):
        fetch("Set", [HERE], root=root, others={"variant='sample'": sample})


def test_a_cache_that_cannot_be_written_is_told(site, copy, cache):
    site["/mirror"] = GOOD
    cache.parent.mkdir()
    cache.write_bytes(b"a file where the cache should be")
    with pytest.raises(FileNotFoundError, match="FileExistsError|NotADirectoryError"):
        fetch("Set", [copy])
