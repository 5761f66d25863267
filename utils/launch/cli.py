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
# Candidates for a free port. They lie below the ephemeral range, whose ports an outgoing connection may take at any time.
FREE_PORTS = range(20000, 32768)


class LaunchError(ValueError):
    """Invalid arguments; the message is one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LaunchError(message)


def _number(text: str) -> int:
    """Parse an integer; int() would also accept 1_0 and digits of other scripts."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"invalid int value: {text[:80]!r}")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text) or not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"invalid float value: {text[:80]!r}")
    return float(text)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="run.py", description="Run a program once per device with msrun, and supervise it.", allow_abbrev=False)
    add = parser.add_argument
    add("--worker_num", type=_number, help="number of processes on all nodes (default: local_worker_num)")
    add("--local_worker_num", type=_number, help="number of processes on this node (default: worker_num)")
    add("--master_addr", default="127.0.0.1", help="IP address or host name of the node with rank 0 (default: %(default)s)")
    add("--master_port", type=_number, default=0,
        help=f"port of the scheduler on that node (default: a free port; {DEFAULT_PORT} with several nodes)")
    add("--node_rank", type=_number, default=0, help="rank of this node; 0 is the node at master_addr (default: %(default)s)")
    add("--log_dir", default="msrun_log",
        help="folder of worker_RANK.log, scheduler.log and msrun.log (msrun_NODE.log on nodes other than the first, so nodes may "
             "share the folder); earlier logs are moved to its earlier/N (default: %(default)s)")
    add("--device_target", choices=("Ascend", "GPU", "CPU"), help="passed to the program (default: not passed)")
    add("--show_ranks", default="0", help="ranks whose output is shown: comma-separated numbers, all, none (default: %(default)s)")
    add("--cluster_time_out", type=_number, default=600, metavar="S",
        help="seconds within which all processes must have joined (default: %(default)s)")
    add("--bind_core", choices=("True", "False"), default="False", help="bind the processes to CPU cores (default: %(default)s)")
    add("--kill_after", type=_seconds, default=20.0, metavar="S",
        help="seconds after the first failure before remaining processes are killed (default: %(default)s)")
    add("program", help="Python file; give it --distribute=True among its arguments")
    add("arguments", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and validate the options, with defaults filled in; LaunchError if they are invalid."""
    options = build_parser().parse_args(argv)
    total, local = options.worker_num or options.local_worker_num, options.local_worker_num or options.worker_num
    if total is None or total < 1 or not 1 <= local <= total:
        raise LaunchError("worker_num and local_worker_num: give at least one, >= 1, and local_worker_num <= worker_num")
    options.worker_num, options.local_worker_num = total, local
    if options.log_dir.startswith("-"):     # msrun passes log paths to tail, which would take this one for an option
        options.log_dir = f"./{options.log_dir}"
    if options.node_rank < 0 or (options.node_rank + 1) * local > total:
        raise LaunchError(f"node_rank: {options.node_rank} does not fit {total} processes with {local} per node")
    if not ADDRESS.fullmatch(options.master_addr):
        raise LaunchError(f"--master_addr: expected an IP address or host name, got {options.master_addr[:80]!r}")
    if options.program.startswith("-") or not Path(options.program).is_file():      # msrun would take -x.py for an option
        raise LaunchError(f"no such program: {options.program}")
    if options.show_ranks not in ("all", "none") and not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", options.show_ranks):
        raise LaunchError(f"--show_ranks: expected comma-separated numbers, all or none, got {options.show_ranks!r}")
    last = 65535 - (PORT_OFFSET if local < total else 0)
    if not 0 <= options.master_port <= last:
        raise LaunchError(f"--master_port: expected 1 to {last}, or 0 for a free port, got {options.master_port}")
    if options.master_port == 0:
        options.master_port = free_port() if local == total else DEFAULT_PORT
    if options.node_rank == 0 and not _is_free(options.master_port):
        other = "another port, or 0 for a free one" if local == total else "another port, the same on all nodes"
        raise LaunchError(f"--master_port: {options.master_port} is in use; choose {other}")
    return options


def free_port() -> int:
    """Return a port that is free, as is the next one, which launchers of several nodes need."""
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
    """Return the log of msrun itself; its name differs between nodes, which may share the folder."""
    return Path(options.log_dir) / ("msrun.log" if options.node_rank == 0 else f"msrun_{options.node_rank}.log")


def prepare_logs(options: argparse.Namespace) -> None:
    """Create the log folder and move logs of an earlier run to earlier/N, since msrun would overwrite them.

    With several nodes, each moves only its own logs: the other nodes may have started already.
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
    """Create and return parent/N with the first unused number N."""
    parent.mkdir(exist_ok=True)
    number = 1
    while True:
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:     # exists, or another node has just created it
            number += 1
        else:
            return parent / str(number)


def msrun_command(options: argparse.Namespace) -> list[str]:
    """Return the msrun command line, run by the current Python."""
    shown = {"all": "-1", "none": "-2"}.get(options.show_ranks, options.show_ranks)     # -1 means all; -2 matches no rank
    target = [f"--device_target={options.device_target}"] if options.device_target else []
    return [sys.executable, "-P", str(Path(__file__).with_name("msrun.py")), f"--worker_num={options.worker_num}",
            f"--local_worker_num={options.local_worker_num}", f"--master_addr={options.master_addr}",
            f"--master_port={options.master_port}", f"--node_rank={options.node_rank}", f"--log_dir={options.log_dir}",
            f"--cluster_time_out={options.cluster_time_out}", f"--bind_core={options.bind_core}", "--join=True",
            f"--tail_worker_log={shown}", options.program, *options.arguments, *target]


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Return the environment of msrun and the ranks."""
    paths = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]     # msrun starts the ranks as "python"
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
