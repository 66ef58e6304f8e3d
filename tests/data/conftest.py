# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What the tests of data share: a folder and a cache of their own, and a local web server."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pooch
import pytest

from pyro_dgm.data.files import FOLDER_VARIABLE, Copy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; and no folder that the environment names."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "pyro_dgm"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder of a user's data files."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def put(root: Path) -> Callable[[str, bytes], Copy]:
    """Write a file into the user's folder and describe it with its true checksum."""

    def put(path: str, data: bytes) -> Copy:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        return Copy(path, "sha256:" + hashlib.sha256(data).hexdigest())

    return put


class Site(dict[str, bytes]):
    """What the local web server has, by path, and what it was asked for."""

    address: str
    asked: list[str]


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on this machine, which stands for the homes of the files."""
    pages = Site()
    pages.asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages.asked.append(self.path)
            found = pages.get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield pages
        server.shutdown()
        thread.join()
