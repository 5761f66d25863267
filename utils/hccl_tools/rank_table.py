"""Rank tables, version 1.0: the assignment of ranks to the devices of machines. All values in a table are strings."""
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Union

from utils.launch.rank_table import NUMBER, TableError, is_ip_address, read_json, shown

from ..command import status_after
from ..files import replacing


class Machine(NamedTuple):
    """A server and its devices."""

    server_id: str
    devices: Sequence[tuple[Union[int, str], str]]      # (device_id, device_ip)


class Device(TypedDict):
    """A device in a table."""

    device_id: str
    device_ip: str
    rank_id: str


class Server(TypedDict):
    """A server in a table."""

    server_id: str
    device: list[Device]
    host_nic_ip: str


class RankTable(TypedDict):
    """The content of a rank table file."""

    version: str
    server_count: str
    server_list: list[Server]
    status: str


def new_table(servers: Iterable[Machine]) -> RankTable:
    """Return the table of the servers; ranks are numbered through them in the given order."""
    rank = 0
    listed: list[Server] = []
    for server_id, devices in servers:
        entries: list[Device] = [{"device_id": str(device_id), "device_ip": device_ip, "rank_id": str(rank + i)}
                                 for i, (device_id, device_ip) in enumerate(devices)]
        rank += len(entries)
        listed.append({"server_id": server_id, "device": entries, "host_nic_ip": "reserve"})
    return {"version": "1.0", "server_count": str(len(listed)), "server_list": listed, "status": "completed"}


def check_table(table: Any) -> None:
    """Raise TableError if HCCL could not form a group from `table`."""
    _expect(isinstance(table, dict), "not a rank table: expected a JSON object")
    _expect(table.get("version") == "1.0", f"version: expected '1.0', got {shown(table.get('version'))}")
    _expect(table.get("status") == "completed", f"status: expected 'completed', got {shown(table.get('status'))}")
    servers: Any = table.get("server_list")
    _expect(isinstance(servers, list) and servers, "server_list: expected at least one server")
    _expect(table.get("server_count") == str(len(servers)),
            f"server_count: {shown(table.get('server_count'))}, but server_list has {len(servers)} servers")
    names: dict[str, bool] = {}
    addresses: dict[str, str] = {}
    ranks: list[Any] = []
    for server in servers:
        _expect(isinstance(server, dict), "server_list: expected JSON objects")
        name = server.get("server_id")
        _check_address(name, "server_id")
        _expect(name not in names, f"server_id: {name} is listed twice")
        names[name] = True
        ranks += _check_devices(server, name, addresses)
    got = ", ".join(rank if isinstance(rank, str) and len(rank) < 10 else shown(rank) for rank in ranks[:64])
    _expect(ranks == [str(rank) for rank in range(len(ranks))],
            f"rank_id: expected 0 to {len(ranks) - 1} in this order, got {got}{', ...' if len(ranks) > 64 else ''}")


def _check_devices(server: dict[str, Any], name: str, addresses: dict[str, str]) -> list[Any]:
    """Check the devices of a server and return their ranks. addresses: {device_ip: place} of all devices so far, extended."""
    devices: Any = server.get("device")
    _expect(isinstance(devices, list) and devices, f"server {name}: no device")
    seen = set()
    for device in devices:
        _expect(isinstance(device, dict), f"server {name}: device: expected JSON objects")
        number, address = device.get("device_id"), device.get("device_ip")
        _expect(isinstance(number, str) and NUMBER.fullmatch(number),
                f"server {name}: device_id: expected a number as a string, got {shown(number)}")
        place = f"server {name}: device {number}"
        _expect(number not in seen, f"{place} is listed twice")
        seen.add(number)
        _check_address(address, f"{place}: device_ip")
        _expect(address not in addresses, f"{place}: device_ip {address} is also that of {addresses.get(address)}")
        addresses[address] = place
    return [device.get("rank_id") for device in devices]


def _check_address(value: Any, where: str) -> None:
    _expect(is_ip_address(value), f"{where}: expected an IP address, got {shown(value)}")


def _expect(holds: Any, message: str) -> None:
    if not holds:
        raise TableError(message)


def read_table(path: Union[str, Path]) -> RankTable:
    """Return the table in a file; TableError if it is invalid."""
    try:
        table = read_json(Path(path))
        check_table(table)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise TableError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:     # not UTF-8, or a TableError
        raise TableError(f"{path}: {error}") from None
    return table


def write_table(table: RankTable, folder: Union[str, Path], name: str) -> Path:
    """Validate a table and write it to FOLDER/NAME atomically."""
    check_table(table)
    path = Path(folder) / name
    with replacing(path, make_folder=False) as partial:
        partial.write_text(json.dumps(table, indent=4) + "\n", encoding="utf-8")
    return path


def guard(program: str, work: Callable[[], Any]) -> int:
    """Run `work` and return the exit status: 0, or 2 after one line on stderr."""
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:     # noqa: BLE001
        return status_after(error, program)
    return 0
