"""Client of tests/preloaded.py. It hands its files, arguments and environment to a forked process, forwards signals, and ends as
that process does. If a forked process would differ from a new one, it becomes a new one.

usage (as the program `python` of preloaded.py): python -I -B -S forked_python.py FOLDER ARGUMENTS_OF_PYTHON...
"""
import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def forked(folder: str, args: list) -> int:
    """Return the status of the forked process, negative if a signal ended it."""
    ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.path.join(folder, "socket"))
    text = json.dumps({"args": args, "cwd": os.getcwd(), "env": dict(os.environ), "ignored": ignored}).encode()
    socket.send_fds(connection, [len(text).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(text)
    for number in PASSED_ON:
        if number not in ignored:
            signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    return int(connection.recv(64) or -signal.SIGKILL)


def main(folder: str, *args: str) -> None:
    with open(os.path.join(folder, "start.json"), encoding="utf-8") as stream:
        start = json.load(stream)
    plain = args and (not args[0].startswith("-") or args[0] in ("-m", "-c", "-P"))
    if not plain or any(os.environ.get(name) != value for name, value in start.items()):
        os.execv(sys.executable, [sys.executable, *args])
    status = forked(folder, list(args))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
