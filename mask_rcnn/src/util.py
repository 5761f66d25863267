# Same as faster_rcnn/src/util.py
"""Utilities: progress of long operations, and formatting of counts and times."""
import sys
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Progress", "counted", "first_of", "format_seconds", "user_path"]


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: "1 image", "2 images", "2 classes", "2 boxes"."""
    plural = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number} {noun}{plural}"


def first_of(names: Iterable[str], most: int = 3) -> str:
    """Format the first of many names: "a, b, c and 4 more"."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def user_path(text: str) -> Path:
    """Parse a path of the command line, and expand ~, which the shell does not do in --key=~/x."""
    return Path(text).expanduser()


class Progress:
    """Shows progress with the remaining time: a bar on a terminal, else a line every `every_s` seconds; `total` may be None."""

    def __init__(self, total, label: str, unit: str = "img", every_s: float = 10.0, stream=None):
        self.total, self.label, self.unit, self.every_s = total, label, unit, every_s
        self.done = 0
        self._stream = stream or sys.stderr
        self._start = self._last = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm
            self._bar = tqdm(total=total, desc=label, unit=unit, file=self._stream, dynamic_ncols=True)

    def update(self, count: int = 1) -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= self.every_s and self.done != self.total:
            self._line()

    def note(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self, finished: bool = True) -> None:
        if self._bar is not None:
            self._bar.close()
        elif finished:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        spent = max(self._last - self._start, 1e-9)
        text = f"{self.label}: {self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"
        text += f", {self.done / spent:.2f} {self.unit}/s"
        if self.total and 0 < self.done < self.total:
            text += f", {format_seconds((self.total - self.done) * spent / self.done)} left"
        print(text, file=self._stream, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(finished=kind is None)


def format_seconds(seconds: float) -> str:
    """Format seconds: 3725 -> "1:02:05"."""
    minutes, seconds = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
