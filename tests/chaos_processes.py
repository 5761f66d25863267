"""What tests/chaos.py does to a command and its files: limits, signals, mutations; and whether a result is whole."""
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2

from tests import commands
from tests.preloaded import send

# Set the limit, then run the command as usual.
LIMITED = """
import resource, runpy, sys
name, size, script = sys.argv[1:4]
if name == "RLIMIT_AS":
    size = int(size) + int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(getattr(resource, name), (int(size), resource.RLIM_INFINITY))
sys.argv = sys.argv[3:]
sys.path[0] = script.rpartition("/")[0]
runpy.run_path(script, run_name="__main__")
"""


# Replacements for a number or a word.
ODD = (b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"null", b'"x"', b"[]", b"{}", b"\\ud800", b"../..", b"1_0",
       b"\xff\xfe", b"\0", b"\x1b[2J", b"true", b"1e-320", b"&a *a", "\uff11".encode())


class Done(NamedTuple):
    status: int         # None: it did not end
    said: str


def run(words: list, cwd: Path, env: dict, timeout: float, signal_at=None, new: bool = False) -> Done:
    """Run a command, forked or in a new interpreter. signal_at: (number, seconds after the start)."""
    merged = {**os.environ, **{name: str(value) for name, value in env.items() if value is not None}}
    for name in (name for name, value in env.items() if value is None):
        merged.pop(name, None)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(os.devnull, "rb")), *(stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))]
        start = new_interpreter if new else forked
        status = start(words, cwd, merged, files, timeout, signal_at)
        for file in files[1:]:
            file.seek(0)
        return Done(status, "".join(file.read().decode("utf-8", "replace") for file in files[1:]))


def new_interpreter(words, cwd, env, files, timeout, signal_at):
    process = subprocess.Popen([sys.executable, *words], cwd=cwd, env=env, stdin=files[0], stdout=files[1], stderr=files[2])
    try:
        if signal_at:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(signal_at[1])
            process.send_signal(signal_at[0])
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def forked(words, cwd, env, files, timeout, signal_at):
    commands.PRELOADED.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(Path(commands.PRELOADED.folder.name, "socket")))
        send(connection, {"args": words, "cwd": str(cwd), "env": env, "ignored": []}, [file.fileno() for file in files])
        for limit in ((signal_at[1], timeout) if signal_at else (timeout,)):
            connection.settimeout(max(limit, 0.001))
            try:
                return int(connection.recv(64) or -signal.SIGKILL)
            except TimeoutError:
                if limit is timeout:
                    break               # closing the connection ends the process
            with contextlib.suppress(OSError):
                connection.send(bytes([signal_at[0]]))
    return None


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with some changed, cut, duplicated, zeroed or inserted; in text also with a number or word replaced."""
    changed = bytearray(data)
    way = chance.choice(("flip", "flip", "cut", "zero", "double", "insert", "number", "number", "word"))
    place, length = chance.randrange(len(data) or 1), int(2 ** chance.uniform(0, 12))
    if way == "flip":
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(data))] ^= chance.randint(1, 255)
    elif way == "cut":
        del changed[place:]
    elif way == "zero":
        changed[place:place + length] = bytes(len(changed[place:place + length]))
    elif way == "double":
        changed[place:place] = changed[place:place + length]
    elif way == "insert":
        changed[place:place] = chance.randbytes(length)
    else:
        found = list(re.finditer(rb"-?\d+(\.\d+)?" if way == "number" else rb"\w+", data[:100000]))
        if found:
            one = chance.choice(found)
            changed[one.start():one.end()] = chance.choice(ODD)
    return bytes(changed)


def is_whole(path: Path) -> bool:
    """Return whether a result can be read."""
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            json.loads(data)
        elif path.suffix in (".png", ".jpg"):
            return cv2.imread(str(path)) is not None
        elif path.suffix == ".ckpt":
            return data[-17:-10] == b"crc_num" and zlib.crc32(data[:-17]) == int.from_bytes(data[-10:], "big")
    except ValueError:
        return False
    return bool(data) or path.suffix in (".log", ".jsonl")


def stripped(data: bytes) -> bytes:
    """Return the data without times."""
    return re.sub(rb"epoch time: .*", b"", data)
