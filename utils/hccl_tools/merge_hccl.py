#!/usr/bin/env python3
"""Make one rank table of those of several machines; ranks count through them in the order given.

usage: python merge_hccl.py TABLE TABLE ... [--output_dir DIR]
Writes DIR/hccl_2s_16p.json: 2 servers, 16 devices.
"""
import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional, Union

if not __package__:         # run as a file: the search path begins with this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.hccl_tools.rank_table import Machine, guard, new_table, read_table, write_table


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="merge_hccl.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="a table of hccl_tools.py; that of rank 0's machine first")
    parser.add_argument("--output_dir", default=".", help="folder of the merged table (the working directory)")
    args = parser.parse_args(argv)
    return guard(parser.prog, lambda: print(merge(args.tables, args.output_dir)))


def merge(paths: Iterable[Union[str, Path]], output_dir: Union[str, Path]) -> Path:
    """Path of the merged table."""
    servers = []
    for path in paths:
        for server in read_table(path)["server_list"]:
            devices = [(device["device_id"], device["device_ip"]) for device in server["device"]]
            servers.append(Machine(server["server_id"], devices))
    count = sum(len(devices) for _, devices in servers)
    return write_table(new_table(servers), output_dir, f"hccl_{len(servers)}s_{count}p.json")


if __name__ == "__main__":
    sys.exit(main())
