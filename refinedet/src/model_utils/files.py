# Same as faster_rcnn/src/model_utils/files.py
"""Write files atomically, and make text safe to print."""
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

# Characters of a file name that its temporary file keeps; with process id and suffix they fit into the usual 255 bytes.
STEM = 50
# The names that `own_name` returns; groups: place, process.
OURS = re.compile(r"\..*\.([0-9a-f]{8})\.([0-9]{1,9})\.part(\.[^.]*)?")
temporaries: set[Path] = set()      # files of this process, which signals.py removes
_cleared: set[Path] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=temporaries.clear)
JOINERS = "\u200c\u200d"    # parts of Persian words and of emoji; harmless to print


class WriteError(OSError):
    """A file cannot be written. `filename` is the final file, not the temporary one."""

    user_error = True

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}"


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block ends without an exception.

    Until then, `path` stays as it was. A device or a pipe, such as /dev/stdout, is written directly; a symbolic link is kept, and
    its target replaced.

    Args:
        path: the file to write.
        durable: make the file survive a power cut; costs some milliseconds.
        make_folder: create the file's folder.

    Raises:
        WriteError: for any OSError in the block.
    """
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.parent == Path("/dev") or (path.exists() and not path.is_file()):
            yield path
            return
        target = Path(os.path.realpath(path))
        if make_folder and not target.parent.exists():      # if a file is in its place, writing reports it
            target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        partial = own_name(target)
        partial.unlink(missing_ok=True)     # could be a hard link to an earlier checkpoint, which must not change
        temporaries.update((partial, partial.with_suffix(".tmp")))      # MindSpore's temporary file for a checkpoint
        try:
            yield partial
            if durable:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())     # otherwise a power cut may leave an empty file under the final name
            partial.replace(target)
        finally:
            for leftover in (partial, partial.with_suffix(".tmp")):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
                temporaries.discard(leftover)


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`. If this process is killed, a later one removes the folder."""
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

    It may already exist if a killed process had the same id: in a container, the command always has id 1.
    """
    return target.with_name(f".{target.stem[:STEM]}.{_place()}.{os.getpid()}.part{target.suffix[-STEM:]}")


def _place() -> str:
    """Return an identifier of the machine and container in which the id of this process is valid."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{zlib.crc32(f'{socket.gethostname()} {namespace}'.encode()):08x}"


def clear_leftovers(folder: Path) -> None:
    """Remove our temporary files whose processes, on this machine, are dead; once per folder."""
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
    except OSError:         # another user's process
        return True
    return True


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError in the block to a WriteError that names `path`, since write() itself names no file."""
    try:
        yield
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` with `text` in UTF-8; lone surrogates, which UTF-8 lacks, are escaped as in JSON."""
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return text as one line without control characters for the terminal; they and lone surrogates are escaped."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char.isprintable() or char in JOINERS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


class LineFormatter(logging.Formatter):
    """Formats log records with `printable`, so that names in them cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def log_to_stderr() -> None:
    """Send the program's log to stderr, as bare messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])


def tell(text: str) -> None:
    """Print a line on stderr, which may itself be a file on a full disk."""
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def reason(error: OSError) -> str:
    """Return one line for an OSError: the file, and the system's message."""
    if getattr(error, "user_error", False) or not error.strerror:      # a WriteError of this module or of its copy
        return str(error)
    name = error.filename2 or error.filename
    return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, (str, bytes, os.PathLike)) else error.strerror
