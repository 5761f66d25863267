# Same as faster_rcnn/src/model_utils/files.py
"""Files that are whole or not there, and text as a terminal can show it."""
import contextlib
import errno
import logging
import os
import re
import shutil
import socket
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path

# Of a name, in the name of its temporary file: with the process id and the suffix it fits into the 255 bytes of a file system.
STEM = 50
# The names that `own_name` gives: place, process.
OURS = re.compile(r"\..*\.([0-9a-f]{8})\.([0-9]{1,9})\.part(\.[^.]*)?")
temporaries: set[Path] = set()      # of this process, for signals.py
_cleared: set[Path] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=temporaries.clear)
JOINERS = "\u200c\u200d"    # part of words in Persian and of emoji; they move nothing


class WriteError(OSError):
    """A file that cannot be written; `filename` is the file that was wanted, not the temporary one."""

    user_error = True

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}"


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True, make_folder: bool = True) -> Iterator[Path]:
    """Yield the path of a temporary file that takes the place of `path` if the block ends without an exception.

    Until then `path` is what it was before. A device or a pipe, such as /dev/stdout, is written directly, and a symbolic link stays
    one. WriteError for every OSError in the block.

    Args:
        durable: the file survives a power cut; costs some milliseconds.
        make_folder: make the folder of the file.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.parent == Path("/dev") or (path.exists() and not path.is_file()):
            yield path
            return
        target = Path(os.path.realpath(path))
        if make_folder and not target.parent.exists():      # a file in its place is said by what writes
            target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        partial = own_name(target)
        partial.unlink(missing_ok=True)     # may be another name of an earlier checkpoint, which must not be written to
        temporaries.update((partial, partial.with_suffix(".tmp")))      # MindSpore writes a checkpoint's beside it
        try:
            yield partial
            if durable:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())     # or a power cut leaves an empty file under the final name
            partial.replace(target)
        finally:
            for leftover in (partial, partial.with_suffix(".tmp")):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
                temporaries.discard(leftover)


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; a killed process's is removed by a later one."""
    clear_leftovers(target.parent)
    folder = own_name(target.with_suffix(".folder"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    temporaries.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        temporaries.discard(folder)


def own_name(target: Path) -> Path:
    """Return the path of this process's temporary file for `target`, in the same folder.

    A process that was killed may have had the same id and left one: the command of a container has the id 1 whenever it starts.
    """
    return target.with_name(f".{target.stem[:STEM]}.{_place()}.{os.getpid()}.part{target.suffix[-STEM:]}")


def _place() -> str:
    """Return where the id of this process means something: the machine, in it the container."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{zlib.crc32(f'{socket.gethostname()} {namespace}'.encode()):08x}"


def clear_leftovers(folder: Path) -> None:
    """Remove temporary files of ours whose processes, of this machine, are dead; once for each folder."""
    if folder in _cleared:
        return
    _cleared.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = OURS.match(path.name)
            if found and found[1] == _place() and not _is_alive(int(found[2])):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    if os.name != "posix":      # on Windows, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:         # somebody else's
        return True
    return True


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise WriteError with the name of `path` for an OSError in the block; write() itself names no file."""
    try:
        yield
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path`, in UTF-8; what UTF-8 does not have, lone surrogates, is escaped, as JSON escapes it too."""
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return text as one line that a terminal shows and does not obey: control characters and lone surrogates are escaped."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


class LineFormatter(logging.Formatter):
    """Formats log records so that names in them show and are not obeyed."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def log_to_stderr() -> None:
    """Let the program's log go to stderr, the messages alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])


def tell(text: str) -> None:
    """Print a line on stderr, which may be a file on the disk that is full."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def reason(error: OSError) -> str:
    """Return the line for an OSError: the file and what the system says of it."""
    if getattr(error, "user_error", False) or not error.strerror:      # a WriteError, of this file or of its copy
        return str(error)
    name = error.filename2 or error.filename
    return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, (str, bytes, os.PathLike)) else error.strerror
