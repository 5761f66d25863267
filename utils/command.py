# Same as faster_rcnn/src/model_utils/command.py
"""How a command ends: its exit status, and one line for what stopped it."""
import logging
import os
import sys
from collections.abc import Callable
from typing import Optional

from .files import LineFormatter, reason, tell
from .memory import lacks_memory, shortage
from .signals import guarded, status_of, taken, word_of


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
    except OSError:             # the interpreter would try again, and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status
