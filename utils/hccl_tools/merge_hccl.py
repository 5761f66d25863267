#!/usr/bin/env python3
"""Merge the rank tables of several machines; ranks are numbered through the tables in the given order.

usage: python merge_hccl.py TABLE TABLE ... [--output_dir DIR]
Writes a file such as DIR/hccl_2s_16p.json for 2 servers and 16 devices.
"""
import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional, Union

if not __package__:         # run as a file: sys.path[0] is this folder, not the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from utils.hccl_tools.rank_table import Machine, guard, new_table, read_table, write_table


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="merge_hccl.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="table made by hccl_tools.py; the table of rank 0 first")
    parser.add_argument("--output_dir", default=".", help="folder to write the merged table to (the working directory)")
    args = parser.parse_args(argv)
    return guard(parser.prog, lambda: print(merge(args.tables, args.output_dir)))


def merge(paths: Iterable[Union[str, Path]], output_dir: Union[str, Path]) -> Path:
    """Write the merged table and return its path."""
    servers = []
    for path in paths:
        for server in read_table(path)["server_list"]:
            devices = [(device["device_id"], device["device_ip"]) for device in server["device"]]
            servers.append(Machine(server["server_id"], devices))
    count = sum(len(devices) for _, devices in servers)
    return write_table(new_table(servers), output_dir, f"hccl_{len(servers)}s_{count}p.json")


if __name__ == "__main__":
    sys.exit(main())
