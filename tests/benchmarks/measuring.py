"""Shared by the timing programs: clocks, medians, and a loop that times one call on request.

Standard library only: peers.py imports this in an environment without the zoo's packages.
"""
import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable

OBJECTS = 8         # per image
CORNERS = 12        # per object outline


def timed(function: Callable[[], object]) -> tuple:
    """Return the wall-clock seconds and the CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def medians(times) -> tuple:
    """Return the median of each column."""
    return tuple(statistics.median(column) for column in zip(*times))


def peak_rss_mb() -> int:
    """Return the peak memory of this process."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def run_apart(function: Callable[[object], None], argument) -> None:
    """Call the function in a separate process, so that its memory is not counted here; exit with its status if it fails."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=(argument,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def worker_parser(description: str, programs) -> argparse.ArgumentParser:
    """Return the command line of a program that `run_worker` serves."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("program", choices=sorted(programs))
    parser.add_argument("--model", default="faster_rcnn", choices=("faster_rcnn", "mask_rcnn"))
    for name, default in (("height", 768), ("width", 1280), ("batch", 2), ("threads", 2), ("warm", 2), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--onnx", help="the ONNX file, which is written if it is not there")
    parser.add_argument("--serve", action="store_true", help="time one call for each line of standard input")
    return parser


def run_worker(args, programs: dict) -> None:
    """Build the program, call it `warm` times, then time it; print JSON lines.

    programs: name -> function of args that returns (call, facts to print). If a package is not installed, prints
    {"missing": reason}.
    """
    try:
        call, facts = programs[args.program](args)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    for _ in range(args.warm):
        call()
    if args.serve:
        print(json.dumps(facts), flush=True)
        for _ in sys.stdin:
            wall, cpu = timed(call)
            print(json.dumps({"s": wall, "cpu_s": cpu, "peak_rss_mb": peak_rss_mb()}), flush=True)
        return
    wall, cpu = medians([timed(call) for _ in range(args.steps)])
    print(json.dumps(vars(args) | facts | {"s": round(wall, 4), "cpu_s": round(cpu, 4), "peak_rss_mb": peak_rss_mb()}))
