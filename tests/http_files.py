"""A local file server that misbehaves as real ones do: each request gets the next of its faults."""
import contextlib
import http.server
import threading
import time
from typing import NamedTuple

TAG = '"one"'


class Fault(NamedTuple):
    """A faulty response.

    cut: bytes after which the connection ends; length: a wrong Content-Length; body: other bytes; status: sent without the file;
    ignores_range: sends the whole file when a part was requested; shift: bytes by which a range starts elsewhere; pause: seconds
    after each byte; chunked: no Content-Length; tag: the ETag, "" for none.
    """

    cut: int = -1
    length: int = -1
    body: bytes = b""
    status: int = 0
    location: str = ""
    ignores_range: bool = False
    shift: int = 0
    pause: float = 0.0
    chunked: bool = False
    tag: str = TAG


class FileServer(http.server.ThreadingHTTPServer):
    """files: {name: bytes}. faults: for the next requests, in order. requests: (name, Range header) of those received."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.faults, self.requests = {}, [], []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        with server.lock:
            server.requests.append((name, self.headers["Range"]))
            fault = server.faults.pop(0) if server.faults else Fault()
        if fault.status or name not in server.files:
            self.send_response(fault.status or 404)
            self.send_header("Location", fault.location) if fault.location else None
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(fault.body or server.files[name], fault)

    def _send(self, data: bytes, fault: Fault):
        asked, start = self.headers["Range"], 0
        same = fault.tag and self.headers["If-Range"] == fault.tag
        if asked and same and not fault.ignores_range:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start += fault.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", fault.tag) if fault.tag else None
        body = data[start:]
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            whole = f"{len(body):x}\r\n".encode() + body + b"\r\n"
            self._write(whole + (b"" if fault.cut >= 0 else b"0\r\n\r\n"), fault)
            return
        self.send_header("Content-Length", str(fault.length if fault.length >= 0 else len(body)))
        self.end_headers()
        self._write(body[:fault.cut] if fault.cut >= 0 else body, fault)

    def _write(self, data: bytes, fault: Fault):
        with contextlib.suppress(OSError):
            if not fault.pause:
                self.wfile.write(data)
                return
            for i in range(len(data)):
                self.wfile.write(data[i:i + 1])
                self.wfile.flush()
                time.sleep(fault.pause)

    def end_headers(self):
        self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    """Yield a running server."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
