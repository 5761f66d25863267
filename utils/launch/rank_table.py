"""What a rank table says about this machine, as options of run.py and variables of its environment, one a line.

usage: python utils/launch/rank_table.py [--count] RANK_TABLE_FILE

--count: only how many devices it has, over all servers, which need not be this machine. Without it, of several servers this
machine is the one with its address, or the one whose number NODE_RANK in the environment holds. A table is JSON, version 1.0:
server_list, of each server_id and device, of each device_id and rank_id.
"""
import json
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple

if not __package__:         # run as a file: the search path begins with this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.files import tell


class Device(NamedTuple):
    """A device of a server."""

    rank: int
    number: int


class Server(NamedTuple):
    """A server of a table."""

    address: str
    devices: list[Device]       # by rank


class TableError(ValueError):
    """A table that cannot be followed, told in one line."""


def read_servers(path: Path) -> list[Server]:
    """Return the servers of a table; TableError where it cannot be followed."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        servers = [Server(str(server["server_id"]),
                          sorted(Device(int(item["rank_id"]), int(item["device_id"])) for item in server["device"]))
                   for server in table["server_list"]]
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise TableError(f"{path}: not a rank table of version 1.0: {what}") from None
    ranks = [rank for _, devices in servers for rank, _ in devices]
    if not ranks or ranks != list(range(len(ranks))):
        raise TableError(f"{path}: rank_id should count from 0 over server_list, got {ranks}")
    if len({len(devices) for _, devices in servers}) > 1:
        raise TableError(f"{path}: the servers have different numbers of devices")
    return servers


def own_number(servers: list[Server], path: Path) -> int:
    """Which of the servers this machine is."""
    wanted = os.environ.get("NODE_RANK", "")
    if wanted:
        if not wanted.isdigit() or int(wanted) >= len(servers):
            raise TableError(f"NODE_RANK: expected 0 to {len(servers) - 1}, the servers of {path}, got {wanted!r}")
        return int(wanted)
    if len(servers) == 1:
        return 0
    number = next((number for number, (address, _) in enumerate(servers) if is_local(address)), None)
    if number is None:
        addresses = ", ".join(address for address, _ in servers)
        raise TableError(f"{path}: none of its servers ({addresses}) has an address of this machine; say which with NODE_RANK")
    return number


def is_local(address: str) -> bool:
    """Whether a socket of this machine can have the address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
            return True
        except OSError:
            continue
    return False


def count_lines(path: Path) -> list[str]:
    """What run.py is told where the devices of the table are not this machine's."""
    return [f"--worker_num={sum(len(devices) for _, devices in read_servers(path))}"]


def launch_lines(path: Path) -> list[str]:
    """NAME=VALUE of the environment, then --name=value of run.py."""
    servers = read_servers(path)
    number = own_number(servers, path)
    devices = [device for _, device in servers[number][1]]
    lines = [f"RANK_TABLE_FILE={path.resolve()}"]
    # The n-th process takes the n-th device that it sees.
    if devices != list(range(len(devices))) and "ASCEND_RT_VISIBLE_DEVICES" not in os.environ:
        lines.append(f"ASCEND_RT_VISIBLE_DEVICES={','.join(map(str, devices))}")
    lines.append(f"--worker_num={len(devices) * len(servers)}")
    if len(servers) > 1:
        lines += [f"--local_worker_num={len(devices)}", f"--node_rank={number}", f"--master_addr={servers[0][0]}"]
    return lines


def main(arguments: list[str]) -> int:
    lines_of = count_lines if arguments[:1] == ["--count"] else launch_lines
    if len(arguments) != (2 if lines_of is count_lines else 1):
        print("usage: rank_table.py [--count] RANK_TABLE_FILE", file=sys.stderr)
        return 2
    try:
        print("\n".join(lines_of(Path(arguments[-1]))))
    except TableError as error:
        tell(f"rank_table.py: error: {' '.join(str(error).split())}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
