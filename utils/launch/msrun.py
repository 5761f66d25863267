"""msrun that at SIGINT ends whatever it has started from the first rank on; its own handler begins when all have been started.

usage: python utils/launch/msrun.py [options of msrun] PROGRAM [its arguments]
"""
import contextlib
import os
import signal
import sys

import psutil


def end_all(*_) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(child.pid) == child.pid:       # a rank, with what it has started
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_all)
    from mindspore.parallel.cluster.run import main

    sys.exit(main())
