"""List everything that is wrong with a data set, and describe what is usable.

usage: python utils/mindrecord/check.py --source FORMAT --image_dir DIR --anno_path PATH [options]
   or: python -m utils.mindrecord.check ...

Exit status: 0 no problems, 1 problems found, 2 wrong usage.
From Python: `from utils.mindrecord.doctor import diagnose`.
"""
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:     # run as a file: sys.path[0] is this folder, not the repository root
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from utils.signals import end_at_signals

    end_at_signals()
    from utils.mindrecord.cli import check_main

    sys.exit(check_main())
