#!/usr/bin/env python3
"""Write the rank table of this machine, for training on several of its Ascend devices.

usage: python hccl_tools.py [--device_num "[0,8)"] [--visible_devices 0,1,...] [--server_ip IP] [--output_dir DIR]
Writes a file such as DIR/hccl_8p_01234567_10.0.0.1.json. merge_hccl.py merges the tables of several machines.
"""
import argparse
import errno
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:         # run as a file: sys.path[0] is this folder, not the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.hccl_tools.rank_table import Machine, TableError, guard, new_table, write_table

HCCN_CONF = "/etc/hccn.conf"
TOOL_SECONDS = 60
MOST_BYTES = 1 << 20    # read of the file with addresses


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="hccl_tools.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--device_num", default="[0,8)",
                        help="range of the visible devices: [FIRST,END) without END, or [FIRST,LAST] (%(default)s)")
    parser.add_argument("--visible_devices", default="",
                        help="numbers of the visible devices, such as 0,1,2,3 (0, 1, ... up to the end of device_num)")
    parser.add_argument("--server_ip", default="", help="address of this machine (address of its host name)")
    parser.add_argument("--hccn_conf", default=os.environ.get("HCCN_CONF", HCCN_CONF),
                        help="file with the devices' addresses, used if hccn_tool does not report them (%(default)s)")
    parser.add_argument("--output_dir", default=".", help="folder to write the table to (the working directory)")
    args = parser.parse_args(argv)
    return guard(parser.prog, lambda: print(make_table(args)))


def make_table(args: argparse.Namespace) -> Path:
    """Write the table and return its path."""
    devices = chosen_devices(args.device_num, args.visible_devices)
    server_ip = args.server_ip or own_address()
    table = new_table([Machine(server_ip, [(device, device_address(device, args.hccn_conf)) for device in devices])])
    return write_table(table, args.output_dir, f"hccl_{len(devices)}p_{''.join(map(str, devices))}_{server_ip}.json")


def chosen_devices(device_num: str, visible_devices: str) -> list[int]:
    """Return the device numbers at the positions `device_num` of `visible_devices`."""
    match = re.fullmatch(r"\s*\[\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*([)\]])\s*", device_num)
    if not match:
        raise TableError(f"--device_num: expected [FIRST,END), such as [0,8), got {device_num!r}")
    first, end = int(match[1]), int(match[2]) + (match[3] == "]")
    if first >= end:
        raise TableError(f"--device_num: {device_num} is an empty range")
    visible = list(range(end))
    if visible_devices.strip():
        if not re.fullmatch(r"\s*[0-9]{1,4}\s*(,\s*[0-9]{1,4}\s*)*", visible_devices):
            raise TableError(f"--visible_devices: expected numbers such as 0,1,2,3, got {visible_devices!r}")
        visible = [int(item) for item in visible_devices.split(",")]
    twice = next((item for item, count in Counter(visible).items() if count > 1), None)
    if twice is not None:
        raise TableError(f"--visible_devices: {twice} is listed twice")
    if end > len(visible):
        raise TableError(f"--device_num: {device_num}, but the number of visible devices is {len(visible)}")
    return visible[first:end]


def device_address(device: int, hccn_conf: str) -> str:
    """Return the IP address of a device's network port, from hccn_tool or else from the file."""
    answer = _ask_tool(device)
    match = re.search(r"^ipaddr\s*:\s*(\S+)", answer, re.M)
    if match:
        return match[1]
    try:
        text = _beginning(Path(hccn_conf))
    except OSError as error:
        raise TableError(f"device {device}: hccn_tool reports no address ({answer.strip() or 'no such command'}), and "
                         f"{hccn_conf}: {error.strerror}".replace("\n", " ")) from None
    found = re.findall(rf"^\s*address_{device}\s*=\s*(\S+)", text, re.M)
    if not found:
        raise TableError(f"device {device}: no address from hccn_tool or in {hccn_conf} (address_{device}=...)")
    return found[-1]


def _beginning(path: Path) -> str:
    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(MOST_BYTES)


def _ask_tool(device: int) -> str:
    """Return the output of `hccn_tool`, or its error; "" if there is no such command."""
    command = ["hccn_tool", "-i", str(device), "-ip", "-g"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_SECONDS,
                              check=False)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout if done.returncode == 0 else done.stderr or done.stdout or f"status {done.returncode}"


def own_address() -> str:
    """Return the address by which other machines know this one."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = ""
    if not address or address.startswith("127."):
        raise TableError("--server_ip is required: the host name resolves to no address that other machines can use")
    return address


if __name__ == "__main__":
    sys.exit(main())
