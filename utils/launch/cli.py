"""The command line of run.py."""
import argparse
import math
import os
import random
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

from ..files import reason, tell
from .nodes import PORT_OFFSET, TOKEN, Nodes, token_of
from .rank_table import ADDRESS
from .supervisor import Supervisor

DEFAULT_PORT = 8118     # msrun's
# Where a free port is looked for: below those that the system gives to outgoing connections, which may take it meanwhile.
FREE_PORTS = range(20000, 32768)


class LaunchError(ValueError):
    """A fault of the call, told in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LaunchError(message)


def _number(text: str) -> int:
    """Not int(), which takes 1_0 and the digits of other scripts too."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"invalid int value: {text[:80]!r}")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text) or not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"invalid float value: {text[:80]!r}")
    return float(text)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="run.py", description="Start a program once per device, with msrun, and watch it.", allow_abbrev=False)
    add = parser.add_argument
    add("--worker_num", type=_number, help="processes in all, over all nodes (default: local_worker_num)")
    add("--local_worker_num", type=_number, help="processes on this node (default: worker_num)")
    add("--master_addr", default="127.0.0.1", help="IP or name of the node with rank 0 (default: %(default)s)")
    add("--master_port", type=_number, default=0,
        help=f"port of the scheduler on that node (default: a free one; {DEFAULT_PORT} with several nodes)")
    add("--node_rank", type=_number, default=0, help="number of this node; 0 is the one at master_addr (default: %(default)s)")
    add("--log_dir", default="msrun_log",
        help="folder of worker_RANK.log, scheduler.log, msrun.log (msrun_NODE.log of other nodes than the first, which may share "
             "it); earlier ones go to its earlier/N (default: %(default)s)")
    add("--device_target", choices=("Ascend", "GPU", "CPU"), help="handed to the program (default: not handed on)")
    add("--show_ranks", default="0", help="ranks whose output is shown: numbers with commas, all, none (default: %(default)s)")
    add("--cluster_time_out", type=_number, default=600, metavar="S",
        help="seconds in which all processes must have come together (default: %(default)s)")
    add("--bind_core", choices=("True", "False"), default="False", help="bind the processes to cores (default: %(default)s)")
    add("--kill_after", type=_seconds, default=20.0, metavar="S",
        help="seconds from the first failure until what still runs is killed (default: %(default)s)")
    add("program", help="a Python file; it is given --distribute=True among its own arguments")
    add("arguments", nargs=argparse.REMAINDER, help="of the program")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options, complete and sound; LaunchError otherwise."""
    options = build_parser().parse_args(argv)
    total, local = options.worker_num or options.local_worker_num, options.local_worker_num or options.worker_num
    if total is None or total < 1 or not 1 <= local <= total:
        raise LaunchError("worker_num and local_worker_num: give one of them, at least 1, and no more on this node than in all")
    options.worker_num, options.local_worker_num = total, local
    if options.log_dir.startswith("-"):     # tail, which msrun starts, would take a log's path for an option
        options.log_dir = f"./{options.log_dir}"
    if options.node_rank < 0 or (options.node_rank + 1) * local > total:
        raise LaunchError(f"node_rank: {options.node_rank} does not fit {total} processes, {local} a node")
    if not ADDRESS.fullmatch(options.master_addr):
        raise LaunchError(f"--master_addr: expected the address of a machine, got {options.master_addr[:80]!r}")
    if options.program.startswith("-") or not Path(options.program).is_file():      # msrun would take -x.py for an option
        raise LaunchError(f"no such program: {options.program}")
    if options.show_ranks not in ("all", "none") and not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", options.show_ranks):
        raise LaunchError(f"--show_ranks: expected numbers with commas, all or none, got {options.show_ranks!r}")
    last = 65535 - (PORT_OFFSET if local < total else 0)
    if not 0 <= options.master_port <= last:
        raise LaunchError(f"--master_port: {options.master_port} is not a port number, 1 to {last} or 0")
    if options.master_port == 0:
        options.master_port = free_port() if local == total else DEFAULT_PORT
    if options.node_rank == 0 and not _is_free(options.master_port):
        other = "another, or 0 for a free one" if local == total else "the same other one on all nodes"
        raise LaunchError(f"--master_port: {options.master_port} is in use; choose {other}")
    return options


def free_port() -> int:
    """A port that is free now, with the next one, which several nodes use too."""
    ports = random.sample(FREE_PORTS, 1000)
    return next(port for port in ports if _is_free(port) and _is_free(port + PORT_OFFSET))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def own_log(options: argparse.Namespace) -> Path:
    """Of msrun; the nodes may share the folder."""
    return Path(options.log_dir) / ("msrun.log" if options.node_rank == 0 else f"msrun_{options.node_rank}.log")


def prepare_logs(options: argparse.Namespace) -> None:
    """The folder, made; logs of an earlier start are moved to earlier/N, for msrun would write over them.

    Of several nodes each moves its own alone: the others may have begun.
    """
    folder, first = Path(options.log_dir), options.node_rank * options.local_worker_num
    if options.local_worker_num == options.worker_num:
        names = ["worker_*.log"]
    else:
        names = [f"worker_{rank}.log" for rank in range(first, first + options.local_worker_num)]
    names += [own_log(options).name, *(["scheduler.log"] if options.node_rank == 0 else [])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for name in names for path in folder.glob(name)]
        if old:
            shelf = _new_folder(folder / "earlier")
            for path in old:
                path.rename(shelf / path.name)
    except OSError as error:
        raise LaunchError(f"--log_dir: {error.filename or folder}: {error.strerror}") from None


def _new_folder(parent: Path) -> Path:
    """parent/1, or the first number that is not there yet, made."""
    parent.mkdir(exist_ok=True)
    number = 1
    while True:
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:     # perhaps just now another node's
            number += 1
        else:
            return parent / str(number)


def msrun_command(options: argparse.Namespace) -> list[str]:
    """msrun of the Python that runs this."""
    shown = {"all": "-1", "none": "-2"}.get(options.show_ranks, options.show_ranks)     # -2 is no rank
    target = [f"--device_target={options.device_target}"] if options.device_target else []
    return [sys.executable, "-P", str(Path(__file__).with_name("msrun.py")), f"--worker_num={options.worker_num}",
            f"--local_worker_num={options.local_worker_num}", f"--master_addr={options.master_addr}",
            f"--master_port={options.master_port}", f"--node_rank={options.node_rank}", f"--log_dir={options.log_dir}",
            f"--cluster_time_out={options.cluster_time_out}", f"--bind_core={options.bind_core}", "--join=True",
            f"--tail_worker_log={shown}", options.program, *options.arguments, *target]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """What msrun and the ranks inherit."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]     # msrun starts the ranks with "python"
    inherited = {name: value for name, value in os.environ.items() if name != TOKEN}
    return {"GLOG_v": "3", **inherited, "PATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1",
            "LOCAL_WORKER_NUM": str(options.local_worker_num)}


def main(argv: Optional[Sequence[str]] = None) -> int:
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        prepare_logs(options)
    except LaunchError as error:
        tell(f"run.py: error: {error}")
        return 2
    nodes, status = None, 1
    if options.local_worker_num < options.worker_num:
        token = token_of(options.master_addr, options.master_port, options.worker_num, options.local_worker_num)
        nodes = Nodes(options.node_rank, options.master_addr, options.master_port, options.cluster_time_out, token)
        nodes.start()
    try:
        status = Supervisor(msrun_command(options), environment(options), own_log(options), options.local_worker_num,
                            options.kill_after, nodes).run()
    except OSError as error:
        tell(f"run.py: error: {reason(error)}")
    finally:
        if nodes:
            nodes.finish(status)
    return status
