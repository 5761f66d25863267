# Same as faster_rcnn/src/model_utils/memory.py
"""Recognise errors that are caused by a lack of memory."""
import errno
import re
from typing import Optional

# Messages of libraries when the system refuses memory; each library has its own exception.
NO_MEMORY = re.compile(r"bad_alloc|out ?of ?memory|insufficient memory|cannot allocate|failed to (map segment|allocate)|"
                       r"alloc\w* (\w+ )?memory.*fail|memory not enough|can't start new thread|resource temporarily unavailable",
                       re.IGNORECASE)


def lacks_memory(error: Optional[BaseException]) -> bool:
    """Return whether this error, or one that caused it, comes from a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if not isinstance(error, OSError) and not getattr(error, "user_error", False) and NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def shortage(error: BaseException) -> str:
    """Return the message for such an error."""
    return f"not enough memory{_limit()}: {_first_line(error)}"


def _limit() -> str:
    try:
        import resource  # not available on every system
    except ImportError:
        return ""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if most == resource.RLIM_INFINITY else f" (ulimit -v allows {most >> 20} MiB)"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip(" -\t")), type(error).__name__)
