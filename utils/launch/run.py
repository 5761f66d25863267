"""Start a program once per device with msrun, watch all of it, and leave nothing running.

usage: python utils/launch/run.py [--worker_num=N] [--local_worker_num=N] [--master_addr=A --master_port=P --node_rank=R]
                                  [--log_dir=D] [--device_target=T] [more options] PROGRAM [its arguments]
   or: python -m utils.launch.run ...

Exit status: 0 where all ranks ended with 0, else that of the rank that failed first, 128 + signal where a signal ended it; 143 or
130 where the run was asked to stop; 2 wrong usage.
"""
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:     # run as a file: the search path begins with this folder
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from utils.signals import end_at_signals

    end_at_signals()
    from utils.launch.cli import main

    sys.exit(main())
