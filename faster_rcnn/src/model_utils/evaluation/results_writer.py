"""Incremental writing of COCO results, and recovery of the results of an interrupted run."""
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..files import writing


class Kept(NamedTuple):
    """Results to keep of an interrupted run: all but those of its last frame, which may be incomplete."""

    last: str               # file name of the last frame, whose results are discarded
    end: int                # size in bytes of the part of the file to keep
    counts: Counter[int]    # number of kept results per category_id


class ResultsWriter:
    """JSON list on disk that can be appended to, and that is valid JSON after every `add`, even after one that fails.

    Args:
        path: the file; overwritten unless `kept` is given.
        kept: results of an interrupted run in the same file, which are kept and appended to.
    """

    CLOSING = b"\n]\n"
    CHUNK = 1 << 20

    def __init__(self, path: Path | str, kept: Kept | None = None):
        self.path = Path(path)
        with writing(self.path):
            # Unbuffered, because a buffer that a full disk rejects would be flushed again on close and raise again.
            self._file = self.path.open("r+b" if kept else "wb", buffering=0)      # noqa: SIM115  (closed by `close`)
        self._end = 0           # offset of CLOSING in bytes
        self.count = 0
        if kept:
            self._end, self.count = kept.end, kept.counts.total()
            self._file.truncate(self._end)
            self._write(self.CLOSING, self._end)
        else:
            self._write(b"[" + self.CLOSING)
            self._end = 1

    def add(self, results: Iterable[dict]) -> None:
        """Append results, one JSON object per line. If writing fails, the file keeps its previous content."""
        chunk, count, end = bytearray(), self.count, self._end
        try:
            for result in results:
                chunk += b",\n" if count else b"\n"
                chunk += json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace")
                count += 1
                if len(chunk) > self.CHUNK:
                    self._write(bytes(chunk), end)
                    end += len(chunk)
                    chunk.clear()
            self._write(bytes(chunk) + self.CLOSING, end)
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
                self._write(self.CLOSING, self._end)
            raise
        self.count, self._end = count, end + len(chunk)

    def _write(self, data: bytes, place: int = 0) -> None:
        view = memoryview(data)
        with writing(self.path):
            self._file.seek(place)
            while view:
                view = view[self._file.write(view):]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_kept(path: Path) -> Kept | None:
    """Return the results to keep of a file by ResultsWriter, which may be truncated anywhere; None if it has no result."""
    last, end, place = "", 1, 0
    kept: Counter[int] = Counter()
    of_last: Counter[int] = Counter()
    with path.open("rb") as stream:
        start = after = len(stream.readline()) and 1        # offset after "["
        place = stream.tell()
        for line in stream:
            result = _result(line)
            if result is None:
                break
            if result["file_name"] != last:
                kept += of_last
                of_last.clear()
                last, end = result["file_name"], after
            of_last[result["category_id"]] += 1
            after = place + len(line.rstrip(b",\n"))
            place += len(line)
    return Kept(last, end, kept) if start and last else None


def _result(line: bytes) -> dict[str, Any] | None:
    """Parse one line; return None if it is not a complete result."""
    try:
        result = json.loads(line.rstrip(b",\n"))
        return result if isinstance(result["file_name"], str) and isinstance(result["category_id"], int) else None
    except (ValueError, TypeError, LookupError):
        return None
