"""End a command with an exit status, and one line on stderr for the error that stopped it."""
import logging
import os
import sys
from collections.abc import Callable
from typing import Optional

from .files import LineFormatter, reason, tell
from .memory import lacks_memory, shortage
from .signals import guarded, status_of, taken, word_of


def run_main(main: Callable[[], Optional[int]]) -> None:
    """Call `main()` and exit with its status.

    Status 0: success. 2, with one line on stderr: an error of the user or the system. 1, also with one line: a damaged file, a
    folder in use or too little memory. 130 or 143: a signal.
    """
    program = os.path.basename(sys.argv[0])
    if logging.lastResort:      # for warnings of commands that configure no logging
        logging.lastResort.setFormatter(LineFormatter())
    try:
        with guarded():
            status = main()
            sys.stdout.flush()      # a full disk can still be reported here
    except (Exception, KeyboardInterrupt) as error:      # noqa: BLE001
        status = status_after(error, program)
    sys.exit(status or 0)


def status_after(error: BaseException, program: str) -> int:
    """Print one line on what stopped the command, and return its status; re-raise errors of the program itself."""
    if isinstance(error, KeyboardInterrupt) or taken():
        return _end(f"{program}: {word_of(error)}", status_of(error))
    if lacks_memory(error):
        return _end(f"{program}: error: {shortage(error)}", 1)
    if isinstance(error, OSError):
        return _end(f"{program}: error: {reason(error)}", 2)
    if getattr(error, "user_error", False):
        return _end(f"{program}: error: {' '.join(str(error).splitlines())}", getattr(error, "status", 2))
    raise error


def _end(line: str, status: int) -> int:
    """Print the line and return the status."""
    tell(line)
    try:
        sys.stdout.flush()
    except OSError:             # at exit the interpreter would try again and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status
