"""Downloads from a server that disconnects, lies, is slow or sends other bytes: the file is complete or absent."""
import contextlib
import hashlib
import socket

import numpy as np
import pytest
import requests

from faster_rcnn.src.model_utils.weights import download as downloads
from faster_rcnn.src.model_utils.weights.download import NotFetchedError, Wanted, download
from tests.http_files import Fault, serving

DATA = np.random.default_rng(0).bytes(100_000)
OTHER = np.random.default_rng(1).bytes(100_000)
DIGITS = hashlib.sha256(DATA).hexdigest()[:8]
MIB = len(DATA) / (1 << 20)


@pytest.fixture(scope="module")
def shared_server():
    with serving() as running:
        yield running


@pytest.fixture
def server(shared_server, monkeypatch):
    """The server with the file data.bin and no faults. Retries hardly wait, and no proxy is used."""
    shared_server.files, shared_server.faults, shared_server.requests = {"data.bin": DATA}, [], []
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    monkeypatch.setattr(downloads, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(downloads, "READ_SECONDS", 0.3)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return shared_server


def wanted(server, digest="sha256", digits=DIGITS, size=MIB, url=""):
    return Wanted("data", url or f"{server.url}/data.bin", digest, digits, size)


def left(folder) -> list:
    return sorted(path.name for path in folder.iterdir())


# The faults of successive answers; the start of each requested range, "" for the whole file.
RECOVERED = {
    "none": ([], [""]),
    "breaks off": ([Fault(cut=40_000), Fault(cut=25_000)], ["", 40_000, 65_000]),
    "before the first byte": ([Fault(cut=0), Fault()], ["", ""]),
    "503 and 429": ([Fault(status=503), Fault(status=429)], ["", "", ""]),
    "ignores the range": ([Fault(cut=40_000), Fault(ignores_range=True)], ["", 40_000]),
    "another version": ([Fault(cut=40_000, body=OTHER, tag='"old"'), Fault()], ["", 40_000]),
    "no validator": ([Fault(cut=40_000, tag=""), Fault(tag="")], ["", ""]),
    "a weak validator": ([Fault(cut=40_000, tag='W/"one"'), Fault()], ["", ""]),
    "another range": ([Fault(cut=40_000), Fault(shift=5)], ["", 40_000, ""]),
    "the joint is damaged": ([Fault(cut=40_000, body=OTHER), Fault()], ["", 40_000, ""]),
    "a length that is too large": ([Fault(length=len(DATA) + 9), Fault(), Fault()], ["", 100_000, ""]),
    "a length that is too small": ([Fault(length=50_000)], ["", ""]),
    "chunked": ([Fault(chunked=True)], [""]),
    "chunked and cut": ([Fault(chunked=True, cut=1), Fault()], ["", ""]),
    "other bytes once": ([Fault(body=OTHER)], ["", ""]),
    "hangs": ([Fault(pause=1.0), Fault()], ["", 1]),
}


def test_a_file_is_complete_after_these_faults(server, tmp_path):
    for name, (faults, ranges) in RECOVERED.items():
        folder = tmp_path / name
        folder.mkdir()
        server.faults, server.requests = list(faults), []
        download(wanted(server, size=None), folder / "data.bin")
        assert (folder / "data.bin").read_bytes() == DATA, name
        assert left(folder) == ["data.bin"], name
        assert [asked for _, asked in server.requests] == [f"bytes={start}-" if start else None for start in ranges], name


REFUSED = {
    "404": ([Fault(status=404)], "the server answers 404 Not Found"),
    "403": ([Fault(status=403)], "the server answers 403 Forbidden"),
    "always 503": ([Fault(status=503)] * 9, "the server answers 503 Service Unavailable, 4 times in a row"),
    "other bytes": ([Fault(body=OTHER)] * 9, f"the server sends another file: its sha256 begins with "
                                             f"{hashlib.sha256(OTHER).hexdigest()[:8]}, expected {DIGITS}"),
    "a page in place of the file": ([Fault(body=b"<html>")] * 9, f"the server offers 0.000 MiB, expected {MIB:g} MiB"),
    "redirects for ever": ([Fault(status=302, location="/data.bin")] * 99, "Exceeded 30 redirects"),
}


def test_no_file_is_left_after_these_faults(server, tmp_path):
    for name, (faults, reason) in REFUSED.items():
        server.faults = list(faults)
        with pytest.raises(NotFetchedError) as caught:
            download(wanted(server), tmp_path / "data.bin")
        assert str(caught.value) == reason, name
        assert left(tmp_path) == [], name


def test_a_server_that_disconnects_after_every_byte_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MOST_TRIES", 7)
    server.faults = [Fault(cut=1)] * 20
    with pytest.raises(NotFetchedError, match="7 times in a row"):
        download(wanted(server), tmp_path / "data.bin")


def test_a_later_call_resumes(server, tmp_path):
    target = tmp_path / "data.bin"
    server.faults = [Fault(cut=40_000), *[Fault(status=500)] * 3]
    with pytest.raises(NotFetchedError, match="500 Internal Server Error, 4 times in a row"):
        download(wanted(server), target)
    assert left(tmp_path) == ["data.bin.part", "data.bin.part.json"]
    server.requests = []
    download(wanted(server), target)
    assert server.requests == [("data.bin", "bytes=40000-")] and target.read_bytes() == DATA and left(tmp_path) == ["data.bin"]


def test_bytes_of_another_address_or_without_a_note_are_not_continued(server, tmp_path):
    part, note = tmp_path / "data.bin.part", tmp_path / "data.bin.part.json"
    for text in ('{"url": "http://other/data.bin", "validator": "\\"one\\"", "bytes": 100000}', "[]", "{", None):
        part.write_bytes(OTHER[:5000])
        note.write_text(text) if text else note.unlink(missing_ok=True)
        server.requests = []
        download(wanted(server), tmp_path / "data.bin")
        assert server.requests == [("data.bin", None)] and (tmp_path / "data.bin").read_bytes() == DATA
        (tmp_path / "data.bin").unlink()


def test_a_trickle_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "SLOW_SECONDS", 0.1)
    server.faults = [Fault(pause=0.02)] * 9
    monkeypatch.setattr(downloads, "TRIES", 1)
    with pytest.raises(NotFetchedError, match="fewer than 64 KiB came in 0.1 seconds"):
        download(wanted(server), tmp_path / "data.bin")


def test_an_invalid_address_is_not_retried(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    for url, expected in (("mirror/data.bin", "Invalid URL 'mirror/data.bin': No scheme supplied"),
                      ("file:///data.bin", "No connection adapters")):
        with pytest.raises(NotFetchedError, match=expected) as caught:
            download(wanted(server, url=url), tmp_path / "data.bin")
        assert "in a row" not in str(caught.value)


def test_without_a_checksum_the_size_must_be_known(server, tmp_path):
    bare = wanted(server, "", "", None)
    server.faults = [Fault(chunked=True)]
    with pytest.raises(NotFetchedError, match="does not state the file's size, and no checksum of the file is published"):
        download(bare, tmp_path / "data.bin")
    server.faults = [Fault(cut=40_000)]
    download(bare, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_md5_and_redirects(server, tmp_path):
    server.files["elsewhere"] = DATA
    server.faults = [Fault(status=302, location="/elsewhere")]
    download(wanted(server, "md5", hashlib.md5(DATA).hexdigest()[:6]), tmp_path / "data.bin")
    assert [name for name, _ in server.requests] == ["data.bin", "elsewhere"]
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_a_redirect_to_plain_http_is_refused(tmp_path, monkeypatch):
    """The answer is made up, because a local server has no certificate."""
    first, last = (requests.Response() for _ in range(2))
    first.url, last.url, last.status_code, last.history = "https://published/data.bin", "http://mirror/data.bin", 200, [first]
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: contextlib.nullcontext(last))
    with pytest.raises(NotFetchedError, match="it is redirected to http://mirror/data.bin, which is not encrypted"):
        download(Wanted("data", first.url, "", "", None), tmp_path / "data.bin")


def test_dead_servers_and_proxies(server, tmp_path, monkeypatch):
    """The environment's proxy is used. If it refuses or does not listen, the error says so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(NotFetchedError, match="Connection refused, 4 times in a row"):
        download(wanted(server, url=f"{dead}/data.bin"), tmp_path / "data.bin")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("http_proxy", server.url)
    download(wanted(server, url="http://published.invalid/data.bin"), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == DATA
    server.faults = [Fault(status=407)]
    with pytest.raises(NotFetchedError, match="the server answers 407 Proxy Authentication Required"):
        download(wanted(server, url="http://published.invalid/data.bin"), tmp_path / "other.bin")
    monkeypatch.setenv("https_proxy", server.url)       # the server does not support CONNECT
    with pytest.raises(NotFetchedError, match="the proxy refuses: Tunnel connection failed: 501"):
        download(wanted(server, url="https://published.invalid/data.bin"), tmp_path / "other.bin")
    monkeypatch.setenv("https_proxy", dead)
    with pytest.raises(NotFetchedError, match="the proxy refuses: .*Connection refused"):
        download(wanted(server, url="https://published.invalid/data.bin"), tmp_path / "other.bin")
    assert left(tmp_path) == ["data.bin"]


def test_a_full_disk_leaves_no_incomplete_file(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            raise OSError(28, "No space left on device")

    opened = downloads.Path.open
    monkeypatch.setattr(downloads.Path, "open", lambda path, mode="r", **options: (
        Full(opened(path, mode)) if mode == "ab" else opened(path, mode, **options)))
    with pytest.raises(OSError, match="No space left on device"):
        download(wanted(server), tmp_path / "data.bin")
    assert "data.bin" not in left(tmp_path)
