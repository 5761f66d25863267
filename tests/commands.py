"""Commands as a user gives them, for tests."""
import os
import subprocess
import sys
from pathlib import Path

from tests.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = Preloaded()


def run(args, cwd=ROOT, env=None, timeout=600, anew=False) -> subprocess.CompletedProcess:
    """The command's status and output as text; its standard input is closed.

    args: "python" as the first is this interpreter; env: goes over the environment, None unsets a variable. anew: see run_within.
    """
    merged = {**os.environ, **(env or {})}
    merged = {name: str(value) for name, value in merged.items() if value is not None}
    return run_within(merged, args, cwd, timeout, anew)


def run_within(env: dict, args, cwd=ROOT, timeout=600, anew=False) -> subprocess.CompletedProcess:
    """The same in this environment and no other variables. Python is forked (tests/preloaded.py), unless it is to start anew."""
    words = [str(item) for item in args]
    if words[0] in ("python", sys.executable):
        if not anew and PRELOADED.suits(words[1:], env):
            return PRELOADED.run(words[1:], cwd, env, timeout)
        words[0] = sys.executable
    return subprocess.run(words, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
