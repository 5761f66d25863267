"""Run a model's infer.py. The last line is JSON: {number of images: resident memory in MB after them}.

usage: python tests/infer_memory.py MODEL --key=value ...
"""
import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    folder = ROOT / sys.argv[1]
    sys.argv = [str(folder / "infer.py"), *sys.argv[2:]]
    sys.path[:1] = [str(folder), str(ROOT)]
    from src import util

    update, held = util.Progress.update, {}

    def record(progress, count=1):
        update(progress, count)
        held[progress.done] = round(resident_mb(), 1)

    util.Progress.update = record
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print(json.dumps(held))
