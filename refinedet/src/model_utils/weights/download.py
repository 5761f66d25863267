# Same as faster_rcnn/src/model_utils/weights/download.py
"""A file over HTTP: resumed where it broke off, checked, and under its name only when it is whole.

Until then it is NAME.part; NAME.part.json says of which version of which address the bytes are, so that bytes of another one are
never joined to them. Proxies are those of the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
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
# Failures in a row without a new byte, and the seconds before the next try, which double.
TRIES, PAUSE, LONGEST_PAUSE = 4, 1.0, 30.0
MOST_TRIES = 100        # with new bytes each time
# A connection that brings fewer bytes than this in so many seconds is given up.
SLOWEST_BYTES, SLOW_SECONDS = 64 << 10, 60.0
CHUNK, MEGABYTE = 1 << 18, 1 << 20
MOST_BYTES = 4 << 30
TRANSIENT = (408, 416, 425, 429, 500, 502, 503, 504)
# Of a size in MiB with three digits.
SIZE_TOLERANCE = 0.01 * MEGABYTE


class NotFetchedError(Exception):
    """Why a file could not be fetched, in words."""


class _TryAgainError(Exception):
    """A failure that may pass."""

    def __init__(self, reason: str, seconds: float = 0.0):
        super().__init__(reason)
        self.seconds = seconds


class Wanted(NamedTuple):
    """What is to be fetched. digits: the first of `digest` ("sha256", "md5"), both may be empty; size: MiB, None = not known."""

    label: str
    url: str
    digest: str
    digits: str
    size: float | None


def download(wanted: Wanted, target: Path) -> None:
    """Fetch the file to `target`; NotFetchedError says why that failed, OSError that it cannot be written."""
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
                if bad == 2:    # the first time a resumed file may have been damaged
                    raise NotFetchedError(f"it sends other bytes: their {wanted.digest} begins with {found}, not {wanted.digits}")
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
    """Return as many digits of the file's digest as are known of the published one."""
    if not wanted.digits:
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, wanted.digest).hexdigest()[:len(wanted.digits)]


class _Transfer:
    """The bytes that are there, and requests for the others."""

    def __init__(self, wanted: Wanted, target: Path):
        self.wanted = wanted
        self.part, self.note = (target.with_name(target.name + ending) for ending in (".part", ".part.json"))

    def size(self) -> int:
        """Bytes that are there."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        """Begin from the first byte."""
        for path in (self.part, self.note):
            path.unlink(missing_ok=True)

    def run(self, session: requests.Session) -> None:
        """Get the rest of the file; _TryAgainError if not all of it came."""
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
        """Raise unless the answer brings bytes of the file."""
        if answer.status_code == 416:
            self.discard()
        told = f"the server answers {answer.status_code} {answer.reason}"
        if answer.status_code in TRANSIENT:
            seconds = answer.headers.get("Retry-After", "")
            raise _TryAgainError(told, float(seconds) if seconds.isdecimal() else 0.0)
        if answer.status_code not in (200, 206):
            raise NotFetchedError(told)
        hops = [hop.url for hop in (*answer.history, answer)]
        plain = next((url for url in hops if not url.startswith("https:")), None)
        if hops[0].startswith("https:") and plain:
            raise NotFetchedError(f"it is redirected to {plain}, which is not encrypted")

    def _total(self, answer: requests.Response, start: int, version: dict[str, Any]) -> int | None:
        """Return the size of the whole file, None where the server does not say it."""
        total: int | None
        if answer.status_code == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            total = int(found[2]) if found else None
            if not found or int(found[1]) != start or total != version.get("bytes"):
                self.discard()
                raise _TryAgainError("the server sends another part of the file than it was asked for")
        else:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() and "Content-Encoding" not in answer.headers else None
        if total is None and not self.wanted.digits:
            raise NotFetchedError("the server does not say how large the file is, and no checksum of it is published")
        stated = self.wanted.size
        if total is not None and (total > MOST_BYTES or (stated and abs(total - stated * MEGABYTE) > SIZE_TOLERANCE)):
            expected = f"{stated:g} MiB are" if stated else f"at most {MOST_BYTES >> 30} GiB are"
            raise NotFetchedError(f"the server offers {total / MEGABYTE:.3f} MiB, {expected} expected")
        return total

    def _receive(self, stream: Any, start: int, total: int | None) -> None:
        """Append the bytes of the answer."""
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
                    raise NotFetchedError("the server sends more bytes than it said")
                if time.monotonic() - window > SLOW_SECONDS:
                    if got - window_start < SLOWEST_BYTES:
                        raise _TryAgainError(f"fewer than {SLOWEST_BYTES >> 10} KiB came in {SLOW_SECONDS:g} seconds")
                    window, window_start = time.monotonic(), got
        if total is not None and got < total:
            raise _TryAgainError(f"the connection ended after {got} of {total} bytes")

    def _version(self) -> dict[str, Any]:
        """What the bytes that are there are of; empty if they cannot be continued."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):     # a damaged note is none
            version = json.loads(self.note.read_text(encoding="utf-8"))
            if version["url"] == self.wanted.url and version["validator"] and version["bytes"]:
                return version
        return {}

    def _keep_version(self, answer: requests.Response, total: int | None) -> None:
        """Note what the file's bytes are of; without a strong validator and a size they are not continued."""
        tag = answer.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        if validator and total:
            write_text(self.note, json.dumps({"url": self.wanted.url, "validator": validator, "bytes": total}))


def reason_of(error: BaseException) -> str:
    """Return the innermost cause of a failed request, in words; requests and urllib3 wrap it several times."""
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
