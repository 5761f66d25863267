# Same as faster_rcnn/src/model_utils/evaluation/results_writer.py
"""Results on disk while they are found, and what a run that was stopped has left of them."""
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..files import writing


class Kept(NamedTuple):
    """The results of a stopped run but for those of its last frame, which may be incomplete."""

    last: str               # name of that frame
    end: int                # bytes of the file that hold them
    counts: Counter[int]    # results of each category_id


class ResultsWriter:
    """A JSON list on disk that grows, and is whole after every `add`, also after one that fails. kept: of an earlier run."""

    CLOSING = b"\n]\n"
    CHUNK = 1 << 20

    def __init__(self, path: Path | str, kept: Kept | None = None):
        self.path = Path(path)
        with writing(self.path):
            # Unbuffered: what a full disk does not take must not be tried again at the end.
            self._file = self.path.open("r+b" if kept else "wb", buffering=0)      # noqa: SIM115  (closed by `close`)
        self._end = 0           # where CLOSING stands
        self.count = 0
        if kept:
            self._end, self.count = kept.end, kept.counts.total()
            self._file.truncate(self._end)
            self._write(self.CLOSING, self._end)
        else:
            self._write(b"[" + self.CLOSING)
            self._end = 1

    def add(self, results: Iterable[dict]) -> None:
        """Append dicts: all of them, or none where it fails."""
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
    """Return what to keep of a file that ResultsWriter has written, and that may end anywhere; None where it has no result."""
    last, end, place = "", 1, 0
    kept: Counter[int] = Counter()
    of_last: Counter[int] = Counter()
    with path.open("rb") as stream:
        start = after = len(stream.readline()) and 1        # behind "["
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
    """Return the result that a line holds, None if it holds none or only a part of one."""
    try:
        result = json.loads(line.rstrip(b",\n"))
        return result if isinstance(result["file_name"], str) and isinstance(result["category_id"], int) else None
    except (ValueError, TypeError, LookupError):
        return None
