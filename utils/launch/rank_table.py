"""Extract from a rank table what the launch scripts need to know about this machine.

usage: python utils/launch/rank_table.py [--count] RANK_TABLE_FILE

Prints five values separated by spaces, then on a second line the table's absolute path and a slash, which protects a newline at the
end of the path. The values are numbers, an address and comma-separated numbers, always in this order:

    WORKERS LOCAL_WORKERS NODE MASTER DEVICES

MASTER is - if the table has one server. DEVICES is - if the processes use devices 0, 1, ... or those of ASCEND_RT_VISIBLE_DEVICES.
With --count, only WORKERS is printed, the number of devices of all servers; this machine need not be one of them. Without it, this
machine is the server with its address, or the server whose number is in NODE_RANK. A table is JSON, version 1.0: server_list, with
server_id and device per server, and device_id and rank_id per device.
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

if not __package__:         # run as a file: sys.path[0] is this folder, not the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.files import tell

MOST_BYTES = 8 << 20        # enough for about 80,000 devices
# An id or a rank: ASCII digits, few enough for int() to be fast.
NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# Characters of an address or host name; ipaddress accepts any text after the % of fe80::1%eth0.
ADDRESS = re.compile(r"[0-9A-Za-z_:][0-9A-Za-z_.:%-]{0,254}")
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80


class Device(NamedTuple):
    """A device of a server."""

    rank: int
    number: int


class Server(NamedTuple):
    """A server of a rank table."""

    address: str
    devices: list[Device]       # sorted by rank


class TableError(ValueError):
    """An invalid rank table; the message is one line."""

    user_error = True


def shown(value: Any) -> str:
    """Format a value for a message, shortened if it is long or deeply nested."""
    return SHORT.repr(value)


def read_json(path: Path) -> Any:
    """Return the parsed content of a table; OSError, or ValueError if it is not JSON, too large or too deeply nested."""
    if not stat.S_ISREG(path.stat().st_mode):       # opening a FIFO would block
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MB")
    try:
        return json.loads(data.decode("utf-8"))
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None


def is_ip_address(text: Any) -> bool:
    """Return whether a value is the text of an IP address, in characters that addresses consist of."""
    try:
        ipaddress.ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return False
    return bool(ADDRESS.fullmatch(text))


def read_servers(path: Path) -> list[Server]:
    """Return the servers of a table; TableError if it is invalid."""
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
        raise TableError(f"{path}: rank_id: expected 0, 1, ... over server_list, got {shown(ranks)}")
    if len({len(devices) for _, devices in servers}) > 1:
        raise TableError(f"{path}: the servers have different numbers of devices")
    if len({address for address, _ in servers}) < len(servers):
        raise TableError(f"{path}: two servers have the same server_id")
    return servers


def _server(server: dict[str, Any]) -> Server:
    address = server["server_id"]
    if not (isinstance(address, str) and ADDRESS.fullmatch(address)):
        raise ValueError(f"server_id: expected an IP address or host name, got {shown(address)}")
    devices = [Device(_number(item, "rank_id"), _number(item, "device_id")) for item in server["device"]]
    if len({device.number for device in devices}) < len(devices):
        raise ValueError(f"server {address}: two devices have the same device_id")
    return Server(address, sorted(devices))


def _number(item: dict[str, Any], key: str) -> int:
    """Return a number that is given as such or as text."""
    value = item[key]
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{key}: expected a number below 1000000000, got {shown(value)}")
    return int(text)


def own_number(servers: list[Server], path: Path) -> int:
    """Return the index of the server that this machine is."""
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
        raise TableError(f"{path}: none of its servers ({addresses}) has an address of this machine; set NODE_RANK to its number")
    return number


def is_local(address: str) -> bool:
    """Return whether a socket of this machine can have the address. Host names are compared, not resolved, which would take hours
    for thousands of them."""
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
    """Return "WORKERS LOCAL_WORKERS NODE MASTER DEVICES", see above."""
    servers = read_servers(path)
    number = own_number(servers, path)
    devices = [device for _, device in servers[number][1]]
    # Each process takes the device of its local rank among those it can see.
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
