"""Run a program once per device with msrun, supervise all processes, and leave none running.

usage: python utils/launch/run.py [--worker_num=N] [--local_worker_num=N] [--master_addr=A --master_port=P --node_rank=R]
                                  [--log_dir=D] [--device_target=T] [more options] PROGRAM [arguments of the program]
   or: python -m utils.launch.run ...

Exit status: 0 if all ranks exit with 0, else the status of the first rank that failed (128 + N if signal N killed it); 143 or 130
if the run was asked to stop; 2 for wrong usage.
"""
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:     # run as a file: sys.path[0] is this folder, not the repository root
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from utils.signals import end_at_signals

    end_at_signals()
    from utils.launch.cli import main

    sys.exit(main())
