# Same as faster_rcnn/src/model_utils/command.py
"""How a command ends: its exit status, and one line for what stopped it."""
import errno
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Optional

from .files import LineFormatter, reason, tell
from .signals import guarded, status_of, taken, word_of

# What libraries say if the system gives them no more memory, each with an exception of its own.
NO_MEMORY = re.compile(r"bad_alloc|out ?of ?memory|insufficient memory|cannot allocate|failed to (map segment|allocate)|"
                       r"alloc\w* (\w+ )?memory.*fail|memory not enough|can't start new thread|resource temporarily unavailable",
                       re.IGNORECASE)


def run_main(main: Callable[[], Optional[int]]) -> None:
    """Call `main()` and leave the process with its status: 0, or 2 and one line on stderr for a fault of the user or the system.

    A damaged file, a folder in use and too little memory give status 1, a signal 130 or 143, with one line too.
    """
    program = os.path.basename(sys.argv[0])
    if logging.lastResort:      # warnings of a command that sets up no log
        logging.lastResort.setFormatter(LineFormatter())
    try:
        with guarded():
            status = main()
            sys.stdout.flush()      # here a full disk can still be reported
    except (Exception, KeyboardInterrupt) as error:      # noqa: BLE001
        status = status_after(error, program)
    sys.exit(status or 0)


def status_after(error: BaseException, program: str) -> int:
    """Say in a line what stopped the command, and return its status; what is no fault of the user or the system is raised again."""
    if isinstance(error, KeyboardInterrupt) or taken():
        return _end(f"{program}: {word_of(error)}", status_of(error))
    if lacks_memory(error):
        return _end(f"{program}: error: not enough memory{_limit()}: {_first_line(error)}", 1)
    if isinstance(error, OSError):
        return _end(f"{program}: error: {reason(error)}", 2)
    if getattr(error, "user_error", False):
        return _end(f"{program}: error: {' '.join(str(error).splitlines())}", getattr(error, "status", 2))
    raise error


def lacks_memory(error: Optional[BaseException]) -> bool:
    """Return whether this error, or one that it comes from, is of a system without free memory."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if not isinstance(error, OSError) and not getattr(error, "user_error", False) and NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _limit() -> str:
    try:
        import resource  # not on every system
    except ImportError:
        return ""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if most == resource.RLIM_INFINITY else f" (ulimit -v allows {most >> 20} MiB)"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip(" -\t")), type(error).__name__)


def _end(line: str, status: int) -> int:
    """Print the line and return the status."""
    tell(line)
    try:
        sys.stdout.flush()
    except OSError:             # the interpreter would try again, and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status
