"""Fixtures of all tests: where real data and parity fixtures lie, the environment, and a way to run commands."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports MindSpore or matplotlib. Processes that the tests start inherit it.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("GLOG_v", "3")
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")


def pytest_sessionstart(session):
    """The tests compute on the CPU, whatever else the machine has."""
    import mindspore as ms

    ms.set_device("CPU")


def _folder(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable) or default)
    if not path.is_dir():
        pytest.skip(f"{variable}: no such folder: {path}")
    return path.resolve()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real pictures and annotations."""
    return _folder("DATA_DIR", ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Checkpoints of other frameworks and what these compute from them."""
    return _folder("PARITY_DIR", ROOT.parent / "shared" / "parity")


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def run_command():
    """run_command(args, cwd=ROOT, env=None, timeout=600) -> CompletedProcess with text, standard input closed.

    "python" as the first argument is this interpreter; `env` is added to the environment, None unsets a variable.
    """
    def run(args, cwd=ROOT, env=None, timeout=600):
        args = [str(item) for item in args]
        args = [sys.executable, *args[1:]] if args[0] == "python" else args
        merged = {**os.environ, **(env or {})}
        merged = {name: str(value) for name, value in merged.items() if value is not None}
        return subprocess.run(args, cwd=cwd, env=merged, timeout=timeout, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False)

    return run
