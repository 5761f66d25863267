"""Run commands as a user types them."""
import os
import subprocess
import sys
from pathlib import Path

from tests.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = Preloaded()


def run(args, cwd=ROOT, env=None, timeout=600, new_process=False) -> subprocess.CompletedProcess:
    """Run a command with standard input closed; return its status and its output as text.

    args: "python" as the first argument is replaced by this interpreter. env: overrides environment variables; None unsets one.
    new_process: see run_within.
    """
    merged = {**os.environ, **(env or {})}
    merged = {name: str(value) for name, value in merged.items() if value is not None}
    return run_within(merged, args, cwd, timeout, new_process)


def run_within(env: dict, args, cwd=ROOT, timeout=600, new_process=False) -> subprocess.CompletedProcess:
    """Run a command with exactly the variables in `env`.

    A Python command is forked from a process that has imported MindSpore (tests/preloaded.py). With new_process, it starts a new
    interpreter.
    """
    words = [str(item) for item in args]
    if words[0] in ("python", sys.executable):
        if not new_process and PRELOADED.suits(env):
            return PRELOADED.run(words[1:], cwd, env, timeout)
        words[0] = sys.executable
    return subprocess.run(words, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
