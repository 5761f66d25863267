"""A small command to run as a job: it writes its settings to output_path, then ends as JOB_END says.

JOB_END: the exit status; `kill`: end by SIGKILL; `wait`: exit with 128 + signal, half a second after SIGTERM or SIGINT.
"""
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faster_rcnn.src.model_utils.config import parse_config, run_main
from faster_rcnn.src.model_utils.moxing_adapter import as_job

SEEN = ("RANK_ID", "DEVICE_ID", "MS_ROLE", "MS_WORKER_NUM")


def main():
    config = parse_config(prepare=functools.partial(as_job, weights="pre_trained", data=True))
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return 0
    output = Path(config.output_path)
    rank = os.environ.get("RANK_ID", "0")
    (output / "mindrecord").mkdir(parents=True, exist_ok=True)
    (output / "mindrecord" / "data").write_text("large")
    (output / f"loss_{rank}.log").write_text(json.dumps({
        "coco_root": config.coco_root, "pre_trained": config.pre_trained, **{name: os.environ.get(name) for name in SEEN}}))
    end = os.environ.get("JOB_END", "0")
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return wait(output) if end == "wait" else int(end)


def wait(output):
    got = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: got.append(number))
    (output / "pid").write_text(str(os.getpid()))
    deadline = time.monotonic() + 60
    while not got and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    (output / "signals").write_text(json.dumps(got))
    return 128 + got[0] if got else 1


if __name__ == "__main__":
    run_main(main)
