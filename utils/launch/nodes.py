"""Tell the launchers of all nodes how each one ended, over a connection from each node to the first.

A rank that waits for a lost rank hangs for minutes and ignores SIGTERM meanwhile. A launcher that disconnects without a status, as
it does if it is killed or its machine fails, counts as failed.

    first: nodes NONCE          node: node NUMBER NONCE MAC         first: welcome MAC          both, later: end NUMBER STATUS

Each end proves that it knows the run's token before the other listens to it. Later messages are neither encrypted nor
authenticated.
"""
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import socket
import threading
import time
from typing import Optional

from ..files import tell
from .supervisor import STOPPED

# Added to the scheduler's port.
PORT_OFFSET = 1
RETRY_S = 0.5
HANDSHAKE_S = 10.0
MOST_STRANGERS, MOST_REPORTS = 32, 5    # unauthenticated connections at a time; messages about them in all
LINE = 256                              # bytes
# A lost machine is noticed after half a minute.
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
TOKEN = "LAUNCH_TOKEN"      # environment variable
HELLO = re.compile(r"node ([0-9]{1,9}) ([0-9a-f]{32}) ([0-9a-f]{64})")
END = re.compile(r"end ([0-9]{1,9}) (-?[0-9]{1,9})")


class StrangerError(ValueError):
    """The peer is not a launcher of this run."""


def token_of(*shared: object) -> bytes:
    """Return the hash of LAUNCH_TOKEN, or else of the run's shared arguments, which guards against accidents only."""
    text = os.environ.get(TOKEN) or repr(("utils.launch", *shared))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


class Nodes:
    """Exchanges end statuses with other nodes. `failed` is (node, its status or None) once a node has failed.

    Args:
        number: this node, 0 = the first.
        address, port: of the first node's scheduler; the first node listens only at this address.
        patience: seconds within which the first node must answer; otherwise the nodes run without this watch.
        token: see token_of.
    """

    def __init__(self, number: int, address: str, port: int, patience: float, token: bytes):
        self.number, self.address, self.port, self.patience = number, address, port + PORT_OFFSET, patience
        self.token = token
        self.failed: Optional[tuple[int, Optional[int]]] = None
        self.closing = threading.Event()
        self.connections: list[socket.socket] = []
        self.server: Optional[socket.socket] = None
        self.strangers = threading.BoundedSemaphore(MOST_STRANGERS)
        self.reports = 0

    def start(self) -> None:
        if self.number:
            threading.Thread(target=self._connect, daemon=True).start()
            return
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(self.address, self.port, type=socket.SOCK_STREAM)[0]
            server = socket.socket(family, kind, protocol)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(place)
            server.listen()
        except OSError as error:
            self._tell_unwatched(f"{self.address}:{self.port}: {error.strerror or error}")
            return
        self.server = server
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def finish(self, status: int) -> None:
        """Send this node's status to the others and close the connections."""
        self.closing.set()
        for connection in tuple(self.connections):
            with contextlib.suppress(OSError):
                connection.sendall(f"end {self.number} {status}\n".encode())
                connection.shutdown(socket.SHUT_WR)
        if self.server:
            self.server.close()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):      # the server socket was closed
            while True:
                connection, _ = server.accept()
                if self.strangers.acquire(blocking=False):
                    threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()
                else:
                    connection.close()

    def _welcome(self, connection: socket.socket) -> None:
        """First node: authenticate a connection, then listen to it; reject everything else."""
        peer = "a connection"
        try:
            peer = str(connection.getpeername()[0])
            number = self._check_node(connection)
        except (OSError, ValueError) as error:
            connection.close()
            self._report(peer, error)
            return
        finally:
            self.strangers.release()
        self.connections.append(connection)
        self._listen(connection, number)

    def _check_node(self, connection: socket.socket) -> int:
        """Return the number of the peer's node; StrangerError or OSError if it is not a node of this run."""
        until, nonce = time.monotonic() + HANDSHAKE_S, secrets.token_hex(16)
        connection.sendall(f"nodes {nonce}\n".encode())
        found = HELLO.fullmatch(read_line(connection, until))
        if not found:
            raise StrangerError("is not a launcher")
        number, theirs, proof = found.groups()
        if not hmac.compare_digest(proof, self._proof("node", number, nonce, theirs)):
            raise StrangerError(f"does not know the token of this run ({TOKEN})")
        connection.sendall(f"welcome {self._proof('first', theirs, nonce)}\n".encode())
        connection.settimeout(None)
        return int(number)

    def _connect(self) -> None:
        """Other nodes: connect to the first node, retrying until `patience` runs out."""
        end = time.monotonic() + self.patience
        while not self.closing.is_set():
            try:
                with contextlib.ExitStack() as opened:
                    connection = opened.enter_context(socket.create_connection((self.address, self.port), timeout=5))
                    self._hello(connection)
                    opened.pop_all()
            except (OSError, ValueError) as error:
                if isinstance(error, StrangerError) or time.monotonic() > end:
                    self._tell_unwatched(f"{self.address}:{self.port}: {getattr(error, 'strerror', None) or error}")
                    return
                self.closing.wait(RETRY_S)
                continue
            self.connections.append(connection)
            self._listen(connection, 0)
            return

    def _hello(self, connection: socket.socket) -> None:
        """Prove that this node belongs to the run, and check that the peer is its first node."""
        until, nonce = time.monotonic() + HANDSHAKE_S, secrets.token_hex(16)
        greeting = read_line(connection, until)
        found = re.fullmatch(r"nodes ([0-9a-f]{32})", greeting)
        if not greeting:
            raise ConnectionResetError("it closed the connection")      # may have too many pending connections
        if not found:
            raise StrangerError("is not a launcher")
        connection.sendall(f"node {self.number} {nonce} {self._proof('node', self.number, found[1], nonce)}\n".encode())
        try:
            answer = read_line(connection, until)
        except OSError:
            answer = ""
        if not hmac.compare_digest(answer.encode(), f"welcome {self._proof('first', nonce, found[1])}".encode()):
            raise StrangerError(f"has a different token ({TOKEN})")
        connection.settimeout(None)

    def _proof(self, *words: object) -> str:
        return hmac.new(self.token, " ".join(map(str, words)).encode(), hashlib.sha256).hexdigest()

    def _listen(self, connection: socket.socket, node: int) -> None:
        """Wait until the peer reports its status or disconnects."""
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        status: Optional[int] = None
        with contextlib.suppress(OSError, ValueError):
            found = END.fullmatch(read_line(connection))
            if found and int(found[1]) == node:
                status = int(found[2])
        if status not in (0, *STOPPED) and not self.closing.is_set():
            self.failed = self.failed or (node, status)

    def _report(self, peer: str, error: Exception) -> None:
        self.reports += 1
        if self.closing.is_set() or self.reports > MOST_REPORTS:
            return
        last = "; further ones are not reported" if self.reports == MOST_REPORTS else ""
        what = error if isinstance(error, StrangerError) else "is not a launcher"
        tell(f"run.py: port {self.port}: {peer} {what}: ignored{last}")

    def _tell_unwatched(self, why: str) -> None:
        tell(f"run.py: {why}: failures of other nodes will not be noticed")


def read_line(connection: socket.socket, until: Optional[float] = None) -> str:
    """Read a line; return "" at the end of the stream.

    TimeoutError after `until` (time.monotonic), StrangerError if it is not a launcher's message.
    """
    data = b""
    while not data.endswith(b"\n"):
        if until is not None:
            connection.settimeout(max(until - time.monotonic(), 0.001))
        byte = connection.recv(1)
        if not byte:
            return ""
        data += byte
        if len(data) > LINE or not data.isascii():
            raise StrangerError("is not a launcher")
    return data.decode("ascii").strip()
