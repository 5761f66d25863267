"""Run Python commands in processes forked from one that has imported MindSpore: a short command spends most of its time importing.

A forked process has its own arguments, environment, working directory, files, signals and exit status. Variables that are read
only while Python or a library starts have no effect; see `suits`. Tests call `Preloaded.run`. Programs that start Python by its
path, such as shell scripts, get `Preloaded.python`.

usage (only by `Preloaded`): python tests/preloaded.py FOLDER
"""
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

CLIENT = Path(__file__).with_name("forked_python.py")
# The slow imports of the commands.
MODULES = ("numpy", "cv2", "matplotlib.figure", "matplotlib.backends.backend_agg", "mindspore", "mindspore.dataset", "onnxruntime",
           "pycocotools.cocoeval", "faster_coco_eval", "tensorboardX", "yaml", "psutil")
# Variables that Python or a library reads only while it starts: a forked process cannot change them.
AT_START = ("PYTHONPATH", "PYTHONHOME", "PYTHONIOENCODING", "PYTHONWARNINGS", "GLOG_v", "LD_PRELOAD", "LANG", "LC_ALL",
            "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTHONUTF8",
            "MS_ROLE")      # a rank's exit joins threads that a forked process does not have


class Preloaded:
    """The forking process, started with the first command."""

    def __init__(self):
        self.process, self.lock, self.folder = None, threading.Lock(), None

    def suits(self, env: dict) -> bool:
        """Return whether a forked process with this environment behaves like a new one."""
        return all(env.get(name) == os.environ.get(name) for name in AT_START)

    def start(self) -> None:
        with self.lock:
            if self.process is None:
                self.folder = tempfile.TemporaryDirectory(prefix="preloaded-")
                self.process = subprocess.Popen([sys.executable, __file__, self.folder.name], stdin=subprocess.PIPE,
                                                stdout=subprocess.PIPE)
                atexit.register(self.close)
                assert self.process.stdout.readline(), "tests/preloaded.py has ended"

    @property
    def python(self) -> Path:
        """A program that is called like Python."""
        self.start()
        return Path(self.folder.name, "python")

    def run(self, args: list, cwd, env: dict, timeout: float) -> subprocess.CompletedProcess:
        """Run like subprocess.run([sys.executable, *args], ...) with captured text and closed standard input."""
        self.start()
        args = [str(item) for item in args]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(os.devnull, "rb"))]
            files += [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(Path(self.folder.name, "socket")))
            request = {"args": args, "cwd": str(cwd), "env": env, "ignored": []}
            send(connection, request, [file.fileno() for file in files])
            connection.settimeout(timeout)
            try:
                reply = connection.recv(64)
                assert reply, "tests/preloaded.py has ended"
            except TimeoutError:        # closing the connection ends the process
                reply = None
            for file in files[1:]:
                file.seek(0)
            out, err = (file.read().decode("utf-8", "surrogateescape") for file in files[1:])
        if reply is None:
            raise subprocess.TimeoutExpired([sys.executable, *args], timeout, out, err)
        return subprocess.CompletedProcess([sys.executable, *args], int(reply), out, err)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.folder.cleanup()


def send(connection, request: dict, files: list) -> None:
    """Send the length of the request with the files, then the request as JSON."""
    text = json.dumps(request).encode()
    socket.send_fds(connection, [len(text).to_bytes(4, "big")], files)
    connection.sendall(text)


def receive(connection) -> tuple:
    """Return (request, files) of `send`."""
    head, files, *_ = socket.recv_fds(connection, 4, 3)
    text = b""
    while len(text) < int.from_bytes(head, "big"):
        text += connection.recv(1 << 20)
    return json.loads(text), files


class Server:
    """Forks a process for each connection, forwards it the signals whose numbers arrive, and kills it when the connection closes.
    Sends back its exit status, as subprocess gives it."""

    def __init__(self, folder: str):
        self.folder, self.children = Path(folder), {}       # connection -> process
        self.selector = selectors.DefaultSelector()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.folder / "socket"))
        self.listening.listen(64)
        self.ended, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the tests and the running command
        for item in (self.listening, self.ended, 0):
            self.selector.register(item, selectors.EVENT_READ)
        words = [sys.executable, "-IBS", CLIENT, self.folder]
        python = self.folder / "python"
        python.write_text(f"#!/bin/sh\nexec {shlex.join(map(str, words))} \"$@\"\n")
        python.chmod(0o700)
        (self.folder / "start.json").write_text(json.dumps({name: os.environ.get(name) for name in AT_START}))

    def serve(self) -> None:
        """Serve until standard input ends, which is when the tests end."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == 0:
                    for child in self.children.values():
                        os.kill(child, signal.SIGKILL)
                    return
                if key.fileobj is self.listening:
                    self.start_one()
                elif key.fileobj == self.ended:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.ended, 4096)
                else:
                    self.hear(key.fileobj)
            self.reap()

    def start_one(self) -> None:
        connection, _ = self.listening.accept()
        request, files = receive(connection)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            for item in (self.listening, self.selector, connection, *self.children):
                item.close()
            os.close(self.ended)
            become(files=files, **request)
        for number in files:
            os.close(number)
        self.children[connection] = child
        self.selector.register(connection, selectors.EVENT_READ)

    def hear(self, connection) -> None:
        try:
            numbers = connection.recv(64)
        except ConnectionError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(self.children[connection], number)
        if not numbers:
            self.selector.unregister(connection)

    def reap(self) -> None:
        for connection, child in list(self.children.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                with contextlib.suppress(OSError):
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                with contextlib.suppress(KeyError):
                    self.selector.unregister(connection)
                connection.close()
                del self.children[connection]


def become(args: list, cwd: str, env: dict, ignored: list, files: list) -> None:
    """Run as the interpreter that is called with `args`: a script, -m or -c, and their arguments. Does not return.

    ignored: signals to ignore.
    """
    import numpy as np

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through="PYTHONUNBUFFERED" in env)
    np.random.seed()
    sys.orig_argv = [sys.executable, *args]
    status = 1
    try:
        run(args)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, (int, type(None))):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def run(args: list) -> None:
    safe = args[0] == "-P"      # do not import from the script's folder
    args = args[safe:]
    if args[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *args[2:]]
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        folder = str(Path(args[0]).resolve().parent)
        sys.path[:1], sys.argv = [] if safe else [folder], args
        runpy.run_path(args[0], run_name="__main__")


def main(folder: str) -> None:
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()     # garbage collection in a forked process would copy the memory of all imports
    server = Server(folder)
    os.write(1, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    server.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
