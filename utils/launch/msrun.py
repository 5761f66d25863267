"""msrun with two changes: SIGINT ends all processes started so far, whereas msrun's own handler is installed only after the last
one has started; and if several nodes share an address, as two launchers on one machine do, only the first runs the scheduler.

usage: python utils/launch/msrun.py [options of msrun] PROGRAM [arguments of the program]
"""
import contextlib
import itertools
import os
import re
import signal
import sys
from collections.abc import Iterable

import psutil


def end_all(*_: object) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(child.pid) == child.pid:       # a rank: kill its whole session
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    os._exit(128 + signal.SIGINT)


def is_first_node(arguments: Iterable[str]) -> bool:
    """Return whether --node_rank is 0 or missing. Arguments after the program belong to the program."""
    own = itertools.takewhile(lambda word: word.startswith("--"), arguments)
    return not any(re.fullmatch(r"--node_rank=0*[1-9]\d*", word) for word in own)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_all)
    from mindspore.parallel.cluster.process_entity import _api
    from mindspore.parallel.cluster.run import main

    if not is_first_node(sys.argv[1:]):
        _api._is_local_ip = lambda address: False       # msrun uses this only to decide whether to run the scheduler
    sys.exit(main())
