"""The launchers of several nodes tell each other how theirs ended, over a connection from each node to the first.

Ranks that wait for a rank which is gone would do so for minutes, and do not hear SIGTERM meanwhile. A launcher that goes without a
word, because it was killed or its machine is gone, has failed too.
"""
import contextlib
import socket
import sys
import threading
import time
from typing import Optional

from .supervisor import STOPPED

# Of the port of the scheduler.
PORT_OFFSET = 1
RETRY_S = 0.5
# Where a machine is gone, half a minute passes until the connection says so.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class Nodes:
    """`failed` is (number of a node, its status or None) once one has failed; `finish` tells the others of our own end.

    Args:
        number: of this node, 0 = the first.
        address, port: of the first node's scheduler.
        patience: seconds in which the first node must answer; without an answer the nodes go on unwatched.
    """

    def __init__(self, number: int, address: str, port: int, patience: float):
        self.number, self.address, self.port, self.patience = number, address, port + PORT_OFFSET, patience
        self.failed: Optional[tuple[int, Optional[int]]] = None
        self.closing = threading.Event()
        self.connections: list[socket.socket] = []
        self.server: Optional[socket.socket] = None

    def start(self) -> None:
        if self.number == 0:
            self.server = server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("", self.port))
            except OSError as error:
                self._tell_unwatched(f"port {self.port}: {error.strerror}")
                return
            server.listen()
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        else:
            threading.Thread(target=self._connect, daemon=True).start()

    def finish(self, status: int) -> None:
        """Tell the others the status of this node, and let go of them."""
        self.closing.set()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sendall(f"end {self.number} {status}\n".encode())
                connection.shutdown(socket.SHUT_WR)
        if self.server:
            self.server.close()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):      # closed
            while True:
                connection, _ = server.accept()
                self.connections.append(connection)
                threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _connect(self) -> None:
        end = time.monotonic() + self.patience
        while not self.closing.is_set():
            try:
                connection = socket.create_connection((self.address, self.port), timeout=5)
            except OSError as error:
                if time.monotonic() > end:
                    self._tell_unwatched(f"{self.address}:{self.port}: {error.strerror or error}")
                    return
                self.closing.wait(RETRY_S)
                continue
            connection.settimeout(None)
            connection.sendall(f"node {self.number}\n".encode())
            self.connections.append(connection)
            self._listen(connection)
            return

    def _listen(self, connection: socket.socket) -> None:
        """Until the other end says how it ended, or goes without a word."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        node, status = (0 if self.number else None), None
        with contextlib.suppress(OSError, ValueError):
            for line in connection.makefile(encoding="ascii"):
                word, *numbers = line.split()
                node = int(numbers[0])
                if word == "end":
                    status = int(numbers[1])
                    break
        if node is not None and status not in (0, *STOPPED) and not self.closing.is_set():
            self.failed = self.failed or (node, status)

    def _tell_unwatched(self, why: str) -> None:
        print(f"run.py: {why}: the nodes will not hear of each other's ends", file=sys.stderr)
