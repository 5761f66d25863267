# Same as faster_rcnn/src/model_utils/weights/download.py
"""Download a file over HTTP: resume after interruptions, verify, and rename only once it is complete.

Until then the file is NAME.part. NAME.part.json records the address and version that its bytes came from, so that bytes of
different versions are never joined. Proxies are taken from the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
"""
import contextlib
import hashlib
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import requests
import urllib3

from ...util import Progress
from ..files import replacing, write_text

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
# Consecutive failures without a new byte, and the seconds before the next attempt, which double each time.
TRIES, PAUSE, LONGEST_PAUSE = 4, 1.0, 30.0
MOST_TRIES = 100        # attempts in all, even if each brings new bytes
# A connection that delivers fewer bytes than this in SLOW_SECONDS is dropped.
SLOWEST_BYTES, SLOW_SECONDS = 64 << 10, 60.0
CHUNK, MEGABYTE = 1 << 18, 1 << 20
MOST_BYTES = 4 << 30
TRANSIENT = (408, 416, 425, 429, 500, 502, 503, 504)
# The table states sizes in MiB with three digits.
SIZE_TOLERANCE = 0.01 * MEGABYTE


class NotFetchedError(Exception):
    """A file could not be fetched; the message says why."""


class _TryAgainError(Exception):
    """A failure that may be temporary; `seconds`: the server's Retry-After, 0 = none."""

    def __init__(self, reason: str, seconds: float = 0.0):
        super().__init__(reason)
        self.seconds = seconds


class Wanted(NamedTuple):
    """A file to fetch. digits: the first digits of its `digest` ("sha256", "md5"), both may be ""; size: MiB, None = unknown."""

    label: str
    url: str
    digest: str
    digits: str
    size: float | None


def download(wanted: Wanted, target: Path) -> None:
    """Fetch the file to `target`.

    Raises:
        NotFetchedError: if the file cannot be fetched or fails verification.
        OSError: if `target` cannot be written.
    """
    transfer = _Transfer(wanted, target)
    failures, bad = 0, 0
    with requests.Session() as session:
        for number in itertools.count(1):
            before = transfer.size()
            try:
                transfer.run(session)
                found = digits_of(transfer.part, wanted)
                if found == wanted.digits:
                    break
                transfer.discard()
                bad += 1
                if bad == 2:    # the first time, the resumed part may have been damaged
                    raise NotFetchedError(f"the server sends another file: its {wanted.digest} begins with {found}, expected "
                                          f"{wanted.digits}")
                continue
            except _TryAgainError as error:
                failures = 1 if transfer.size() > before else failures + 1
                if failures >= TRIES or number >= MOST_TRIES:
                    raise NotFetchedError(f"{error}, {failures if failures >= TRIES else number} times in a row") from error
                time.sleep(min(error.seconds or PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))
    with replacing(target) as whole:
        transfer.part.replace(whole)
    transfer.discard()


def digits_of(path: Path, wanted: Wanted) -> str:
    """Return as many digits of the file's digest as the table knows of the published one."""
    if not wanted.digits:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, wanted.digest).hexdigest()[:len(wanted.digits)]


class _Transfer:
    """The bytes received so far, and the requests for the rest."""

    def __init__(self, wanted: Wanted, target: Path):
        self.wanted = wanted
        self.part, self.note = (target.with_name(target.name + ending) for ending in (".part", ".part.json"))

    def size(self) -> int:
        """Return the number of bytes received so far."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        """Start over from the first byte."""
        for path in (self.part, self.note):
            path.unlink(missing_ok=True)

    def run(self, session: requests.Session) -> None:
        """Fetch the rest of the file. Raises _TryAgainError if not all of it arrived."""
        version = self._version()
        if not version:
            self.discard()
        have = self.size()
        if have and have == version.get("bytes"):
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers.update({"Range": f"bytes={have}-", "If-Range": version["validator"]})
        try:
            with session.get(self.wanted.url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer:
                self._check(answer)
                start = have if answer.status_code == 206 else 0
                total = self._total(answer, start, version)
                if not start:
                    self.discard()
                    self._keep_version(answer, total)
                self._receive(answer.raw, start, total)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason = reason_of(error)
            if isinstance(error, (requests.exceptions.ProxyError, requests.TooManyRedirects, ValueError)):
                raise NotFetchedError(reason) from error
            raise _TryAgainError(reason) from error

    def _check(self, answer: requests.Response) -> None:
        """Raise an error unless the answer contains bytes of the file."""
        if answer.status_code == 416:
            self.discard()
        reason = f"the server answers {answer.status_code} {answer.reason}"
        if answer.status_code in TRANSIENT:
            seconds = answer.headers.get("Retry-After", "")
            raise _TryAgainError(reason,  float(seconds) if seconds.isdecimal() else 0.0)
        if answer.status_code not in (200, 206):
            raise NotFetchedError(reason)
        hops = [hop.url for hop in (*answer.history, answer)]
        plain = next((url for url in hops if not url.startswith("https:")), None)
        if hops[0].startswith("https:") and plain:
            raise NotFetchedError(f"it is redirected to {plain}, which is not encrypted")

    def _total(self, answer: requests.Response, start: int, version: dict[str, Any]) -> int | None:
        """Return the size of the whole file, or None if the server does not state it."""
        total: int | None
        if answer.status_code == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            total = int(found[2]) if found else None
            if not found or int(found[1]) != start or total != version.get("bytes"):
                self.discard()
                raise _TryAgainError("the server sends a different part of the file than requested")
        else:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() and "Content-Encoding" not in answer.headers else None
        if total is None and not self.wanted.digits:
            raise NotFetchedError("the server does not state the file's size, and no checksum of the file is published")
        stated = self.wanted.size
        if total is not None and (total > MOST_BYTES or (stated and abs(total - stated * MEGABYTE) > SIZE_TOLERANCE)):
            expected = f"{stated:g} MiB" if stated else f"at most {MOST_BYTES >> 30} GiB"
            raise NotFetchedError(f"the server offers {total / MEGABYTE:.3f} MiB, expected {expected}")
        return total

    def _receive(self, stream: Any, start: int, total: int | None) -> None:
        """Append the bytes of the answer to the file."""
        got = start
        megabytes = None if total is None else max(1, round(total / MEGABYTE))
        with Progress(megabytes, self.wanted.label, unit="MB") as progress, self.part.open("ab") as file:
            progress.update(got // MEGABYTE)
            window, window_start = time.monotonic(), got
            while chunk := stream.read1(CHUNK):
                file.write(chunk)
                got += len(chunk)
                progress.update(got // MEGABYTE - progress.done)
                if got > min(total or MOST_BYTES, MOST_BYTES):
                    raise NotFetchedError("the server sends more bytes than it announced")
                if time.monotonic() - window > SLOW_SECONDS:
                    if got - window_start < SLOWEST_BYTES:
                        raise _TryAgainError(f"fewer than {SLOWEST_BYTES >> 10} KiB came in {SLOW_SECONDS:g} seconds")
                    window, window_start = time.monotonic(), got
        if total is not None and got < total:
            raise _TryAgainError(f"the connection ended after {got} of {total} bytes")

    def _version(self) -> dict[str, Any]:
        """Return the recorded version of the received bytes; empty if they cannot be continued."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):     # a damaged note counts as none
            version = json.loads(self.note.read_text(encoding="utf-8"))
            if version["url"] == self.wanted.url and version["validator"] and version["bytes"]:
                return version
        return {}

    def _keep_version(self, answer: requests.Response, total: int | None) -> None:
        """Record the version of the file's bytes; without a strong validator and a size, they are not continued."""
        tag = answer.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        if validator and total:
            write_text(self.note, json.dumps({"url": self.wanted.url, "validator": validator, "bytes": total}))


def reason_of(error: BaseException) -> str:
    """Describe the innermost cause of a failed request, which requests and urllib3 wrap several times."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or next((item for item in error.args if isinstance(item, BaseException)), None)
        if not isinstance(inner, BaseException):
            break
        if isinstance(error, urllib3.exceptions.ProxyError):
            return f"the proxy refuses: {reason_of(inner)}"
        error = inner
    if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)) and not isinstance(
            error, urllib3.exceptions.NewConnectionError):
        return "the server does not answer in time"
    text = str(error).rpartition("port=")[2].partition("): ")[2] or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
