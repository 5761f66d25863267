"""msrun, but for two things. At SIGINT it ends whatever it has started, from the first rank on: its own handler begins when all
have been started. And of several nodes with one address, as two launchers on one machine are, the first alone has the scheduler.

usage: python utils/launch/msrun.py [options of msrun] PROGRAM [its arguments]
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
            if os.getsid(child.pid) == child.pid:       # a rank, with what it has started
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    os._exit(128 + signal.SIGINT)


def is_first_node(arguments: Iterable[str]) -> bool:
    """Whether --node_rank=N is 0 or not given; what stands behind the program is the program's."""
    own = itertools.takewhile(lambda word: word.startswith("--"), arguments)
    return not any(re.fullmatch(r"--node_rank=0*[1-9]\d*", word) for word in own)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_all)
    from mindspore.parallel.cluster.process_entity import _api
    from mindspore.parallel.cluster.run import main

    if not is_first_node(sys.argv[1:]):
        _api._is_local_ip = lambda address: False       # msrun asks no more than whether it has the scheduler's address
    sys.exit(main())
