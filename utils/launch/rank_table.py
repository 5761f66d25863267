"""What a rank table says about this machine, for the launch scripts.

usage: python utils/launch/rank_table.py [--count] RANK_TABLE_FILE

Prints a line of five values with spaces between them, then the absolute path of the table and a slash, which keeps a line break at
the end of the path. The values are numbers, an address and numbers with commas, always in this order:

    WORKERS LOCAL_WORKERS NODE MASTER DEVICES

MASTER is - if the table has one server, DEVICES is - if the processes take the devices 0, 1, ... or those of
ASCEND_RT_VISIBLE_DEVICES. With --count, only WORKERS: the devices of all servers, none of which need be this machine. Without it,
this machine is the server with its address, or the one whose number NODE_RANK in the environment holds. A table is JSON, version
1.0: server_list, of each server_id and device, of each device_id and rank_id.
"""
import ipaddress
import json
import os
import re
import reprlib
import socket
import stat
import sys
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:         # run as a file: the search path begins with this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.files import tell

MOST_BYTES = 8 << 20        # about 80,000 devices
# The whole text of an id or a rank: ASCII digits, so few that int() is quick.
NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# What an address or the name of a machine consists of. ipaddress takes any text behind the % of fe80::1%eth0.
ADDRESS = re.compile(r"[0-9A-Za-z_:][0-9A-Za-z_.:%-]{0,254}")
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80


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

    user_error = True


def shown(value: Any) -> str:
    """A value for a message, cut where it is long or deep."""
    return SHORT.repr(value)


def read_json(path: Path) -> Any:
    """The content of a table's file. OSError, or ValueError where it is no JSON, too large or nested too deep."""
    if not stat.S_ISREG(path.stat().st_mode):       # a FIFO would be waited for
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MB")
    try:
        return json.loads(data.decode("utf-8"))
    except (RecursionError, MemoryError):
        raise ValueError("nested too deep") from None


def is_ip_address(text: Any) -> bool:
    """Whether it is the text of an IP address, of which no letter can be more than that."""
    try:
        ipaddress.ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return False
    return bool(ADDRESS.fullmatch(text))


def read_servers(path: Path) -> list[Server]:
    """Return the servers of a table; TableError where it cannot be followed."""
    try:
        table = read_json(path)
        servers = [_server(server) for server in table["server_list"]]
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise TableError(f"{path}: not a rank table of version 1.0: {what}") from None
    ranks = [rank for _, devices in servers for rank, _ in devices]
    if not ranks or ranks != list(range(len(ranks))):
        raise TableError(f"{path}: rank_id should count from 0 over server_list, got {shown(ranks)}")
    if len({len(devices) for _, devices in servers}) > 1:
        raise TableError(f"{path}: the servers have different numbers of devices")
    if len({address for address, _ in servers}) < len(servers):
        raise TableError(f"{path}: two servers have the same server_id")
    return servers


def _server(server: dict[str, Any]) -> Server:
    address = server["server_id"]
    if not (isinstance(address, str) and ADDRESS.fullmatch(address)):
        raise ValueError(f"server_id: expected the address of a machine, got {shown(address)}")
    devices = [Device(_number(item, "rank_id"), _number(item, "device_id")) for item in server["device"]]
    if len({device.number for device in devices}) < len(devices):
        raise ValueError(f"server {address}: two devices have the same device_id")
    return Server(address, sorted(devices))


def _number(item: dict[str, Any], key: str) -> int:
    """A number, or the text of one."""
    value = item[key]
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{key}: expected a number below 1000000000, got {shown(value)}")
    return int(text)


def own_number(servers: list[Server], path: Path) -> int:
    """Which of the servers this machine is."""
    wanted = os.environ.get("NODE_RANK", "")
    if wanted:
        if not NUMBER.fullmatch(wanted) or int(wanted) >= len(servers):
            raise TableError(f"NODE_RANK: expected 0 to {len(servers) - 1}, the servers of {path}, got {shown(wanted)}")
        return int(wanted)
    if len(servers) == 1:
        return 0
    number = next((number for number, (address, _) in enumerate(servers) if is_local(address)), None)
    if number is None:
        addresses = ", ".join(address for address, _ in servers[:8]) + (", ..." if len(servers) > 8 else "")
        raise TableError(f"{path}: none of its servers ({addresses}) has an address of this machine; say which with NODE_RANK")
    return number


def is_local(address: str) -> bool:
    """Whether a socket of this machine can have the address. A name is this machine's own or not; none is looked up, for thousands
    of them would take hours."""
    if not is_ip_address(address):
        name = socket.gethostname()
        return address in (name, name.partition(".")[0])
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((address, 0))
            return True
        except OSError:
            continue
    return False


def launch_values(path: Path) -> str:
    """WORKERS LOCAL_WORKERS NODE MASTER DEVICES"""
    servers = read_servers(path)
    number = own_number(servers, path)
    devices = [device for _, device in servers[number][1]]
    # The n-th process takes the n-th device that it sees.
    as_seen = devices == list(range(len(devices))) or "ASCEND_RT_VISIBLE_DEVICES" in os.environ
    master = servers[0].address if len(servers) > 1 else "-"
    return f"{len(devices) * len(servers)} {len(devices)} {number} {master} {'-' if as_seen else ','.join(map(str, devices))}"


def main(arguments: list[str]) -> int:
    counted = arguments[:1] == ["--count"]
    if len(arguments) != (2 if counted else 1):
        print("usage: rank_table.py [--count] RANK_TABLE_FILE", file=sys.stderr)
        return 2
    path = Path(arguments[-1])
    try:
        values = str(sum(len(devices) for _, devices in read_servers(path))) if counted else launch_values(path)
    except TableError as error:
        tell(f"rank_table.py: error: {' '.join(str(error).split())}")
        return 2
    sys.stdout.buffer.write(values.encode() + b"\n" + os.fsencode(path.resolve()) + b"/\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
