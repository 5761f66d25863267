"""Run Python commands in processes forked from one that has imported MindSpore: a short command spends most of its time importing.

A forked process has its own arguments, environment, working directory, output and exit status. Only variables that are read while
Python or MindSpore starts have no effect in it; see `suits`.

usage (by `Preloaded` alone): python tests/preloaded.py
"""
import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

# The slow imports of the commands.
MODULES = ("numpy", "cv2", "matplotlib.figure", "matplotlib.backends.backend_agg", "mindspore", "mindspore.dataset", "onnxruntime",
           "pycocotools.cocoeval", "faster_coco_eval", "tensorboardX", "yaml")
# Variables that Python or a library reads only while it starts: a forked process cannot change them.
AT_START = ("PYTHONPATH", "PYTHONHOME", "PYTHONIOENCODING", "PYTHONWARNINGS", "GLOG_v", "LD_PRELOAD", "LANG", "LC_ALL", "MS_ROLE",
            "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "PYTHONHASHSEED", "PYTHONUTF8")


class Preloaded:
    """The process that forks, started with the first command; of several threads each has its turn."""

    def __init__(self):
        self.process, self.lock = None, threading.Lock()

    def suits(self, env: dict) -> bool:
        """Return whether a forked process with this environment behaves like a new one."""
        return all(env.get(name) == os.environ.get(name) for name in AT_START)

    def run(self, args: list, cwd, env: dict, timeout: float) -> subprocess.CompletedProcess:
        """As subprocess.run([sys.executable, *args], ...) with captured text and closed standard input."""
        with self.lock, tempfile.TemporaryDirectory() as folder:
            if self.process is None:
                self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                text=True)
                atexit.register(self.close)
            outputs = [Path(folder, name) for name in ("out", "err")]
            request = {"args": [str(item) for item in args], "cwd": str(cwd), "env": env, "outputs": list(map(str, outputs)),
                       "timeout": timeout}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
            assert reply, "tests/preloaded.py has ended"
            status = json.loads(reply)
            out, err = (path.read_text(encoding="utf-8", errors="surrogateescape") for path in outputs)
        command = [sys.executable, *request["args"]]
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, out, err)
        return subprocess.CompletedProcess(command, status, out, err)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def serve() -> None:
    """A command for each line of standard input; to standard output its status, null where it took too long."""
    for name in MODULES:
        importlib.import_module(name)

    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is for the tests, and for the command that runs
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests = os.fdopen(os.dup(0))
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            requests.close()
            replies.close()
            become(**request)
        replies.write(json.dumps(status_of(child, request["timeout"])) + "\n")
        replies.flush()


def status_of(child: int, timeout: float):
    """As subprocess has it; None where the process was ended for it."""
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def become(args: list, cwd: str, env: dict, outputs: list, timeout: float) -> None:
    """The interpreter that is called with `args`: a script, -m or -c, and their arguments. Does not return."""
    import numpy as np

    for number, path in enumerate((os.devnull, *outputs)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        handle = os.open(path, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
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
    if args[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.path[0], sys.argv = "", ["-c", *args[2:]]
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv = str(Path(args[0]).resolve().parent), args
        runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    serve()
