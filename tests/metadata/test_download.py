"""Fetching dumps from a server of this machine: polite, resumed, checked."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.metadata.download import AGENT, LONGEST_WAIT, Remote, articles_of, download

CONTENT = bytes(range(256)) * 2000


class Dumps(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str]]] = []
    agents: ClassVar[set[str]] = set()
    now: ClassVar[list[int]] = [0, 0]  # connections at work, and the most there were at once

    def do_GET(self) -> None:
        self.now[0] += 1
        self.now[1] = max(self.now)
        try:
            self._serve()
        finally:
            self.now[0] -= 1

    def _serve(self) -> None:
        self.agents.add(self.headers.get("User-Agent", ""))
        ranged = self.headers.get("Range", "")
        self.asked.append((self.path, ranged))
        if self.path.endswith("sha1sums.txt"):
            name = f"{'be_x_old' if 'be_x_old' in self.path else 'sw'}wiki-20240501-pages-articles.xml.bz2"
            self._answer(200, f"{hashlib.sha1(CONTENT).hexdigest()}  {name}\n{'0' * 40}  swwiki-other.gz\n".encode())
        elif "missing" in self.path:
            self.send_error(404)
        elif "busy" in self.path:
            self.send_response(429)
            self.send_header("Retry-After", "9999")
            self.end_headers()
        elif "whole" in self.path:  # knows of no ranges
            self._answer(200, CONTENT)
        elif "complete" in self.path and ranged:
            self.send_error(416)
        elif len(self.asked) == 2:
            self.send_response(503)
            self.send_header("Retry-After", "7")
            self.end_headers()
        elif not ranged:  # breaks off
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            self.close_connection = True
        else:
            self._answer(206, CONTENT[int(ranged.removeprefix("bytes=").rstrip("-")) :])

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Dumps.asked, Dumps.agents, Dumps.now = [], set(), [0, 0]
    with ThreadingHTTPServer(("127.0.0.1", 0), Dumps) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_download_waits_resumes_and_checks(server: str, tmp_path: Path) -> None:
    waited: list[float] = []
    remotes = articles_of("sw", server)
    assert [remote.name for remote in remotes] == ["swwiki-20240501-pages-articles.xml.bz2"]
    (path,) = download(remotes, tmp_path, pause=waited.append)
    assert path.read_bytes() == CONTENT
    assert waited[0] == 7.0
    assert Dumps.asked[-1][1] == "bytes=1000-"
    assert Dumps.agents == {AGENT}
    until = time.monotonic() + 5
    while Dumps.now[0] and time.monotonic() < until:  # the server may end a connection after us
        time.sleep(0.01)
    assert Dumps.now == [0, 1]
    before = len(Dumps.asked)
    download(remotes, tmp_path)
    assert len(Dumps.asked) == before
    wrong = Remote(url=remotes[0].url, name="b", sha1="0" * 40)
    with pytest.raises(DataError, match="SHA-1"):
        download([wrong], tmp_path, pause=waited.append)
    assert {each.name for each in tmp_path.iterdir()} == {path.name}


def test_what_a_server_may_do(server: str, tmp_path: Path) -> None:
    sha1 = hashlib.sha1(CONTENT).hexdigest()
    waited: list[float] = []
    told: list[tuple[str, int, int]] = []
    # It sends all of a file of which a part is there.
    (tmp_path / "whole.part").write_bytes(b"other bytes")
    whole = Remote(url=f"{server}/whole", name="whole", sha1=sha1)
    download([whole], tmp_path, lambda *row: told.append(row))
    assert (tmp_path / "whole").read_bytes() == CONTENT
    assert told[-1] == ("whole", len(CONTENT), len(CONTENT))
    # A part that is complete needs no more.
    (tmp_path / "complete.part").write_bytes(CONTENT)
    download([Remote(url=f"{server}/complete", name="complete", sha1=sha1)], tmp_path)
    assert (tmp_path / "complete").read_bytes() == CONTENT
    with pytest.raises(MissingData, match="404"):
        download([Remote(url=f"{server}/missing", name="missing", sha1=sha1)], tmp_path, pause=waited.append)
    assert waited == []
    with pytest.raises(MissingData, match="429"):
        download([Remote(url=f"{server}/busy", name="busy", sha1=sha1)], tmp_path, pause=waited.append)
    assert waited == [LONGEST_WAIT] * 4  # however long it asks to be left alone


def test_the_one_wikipedia_that_dumps_name_otherwise(server: str) -> None:
    for code in ("be_tarask", "be_x_old"):
        (remote,) = articles_of(code, server)
        assert remote.url.endswith("/be_x_oldwiki/20240501/be_x_oldwiki-20240501-pages-articles.xml.bz2")


def test_what_cannot_be_asked_for(server: str) -> None:
    with pytest.raises(ConfigError, match="no such Wikipedia"):
        articles_of("klingon", server)
    with pytest.raises(ConfigError, match="begins with https"):
        articles_of("sw", "file:///etc")
    with pytest.raises(MissingData, match="lists no pages-articles"):
        articles_of("yo", server)  # the sums are of the Swahili Wikipedia
    with pytest.raises(MissingData, match="is there a network"):
        articles_of("sw", "http://127.0.0.1:9")
