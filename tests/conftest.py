"""Fixtures for all tests: folders of real data and parity fixtures, the environment, and a function that runs commands."""
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).resolve().parents[1]

# Set before anything imports MindSpore or matplotlib. Processes that the tests start inherit it.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("GLOG_v", "3")
os.environ["MPLBACKEND"] = "Agg"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run all tests of a file on one worker, because they share what is slow to make. The three files of the C++ program count
    as one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "cpp" if "/test_cpp_" in file else file

    return ByFile(config, log)


def pytest_sessionstart(session):
    """Run the tests on the CPU, whatever else the machine has."""
    import mindspore as ms

    ms.set_device("CPU")
    ms.runtime.launch_blocking()    # one operator at a time: operators' threads wait for each other by spinning


def pytest_collection_modifyitems(items):
    """Mark the tests that compare with other frameworks: "parity" is in their id."""
    for item in items:
        if "parity" in item.nodeid:
            item.add_marker("parity")


@pytest.fixture(scope="module", autouse=True)
def _recycle():
    """Free the compiled graphs and the memory that MindSpore keeps. Reset its mode and the SIGPIPE handler, which commands may
    have changed in this process."""
    yield
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if "mindspore" in sys.modules:
        ms = sys.modules["mindspore"]
        ms.ms_memory_recycle()
        if ms.get_context("mode") != ms.PYNATIVE_MODE:
            ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(scope="module")
def eager():
    """Run networks operator by operator, here and in commands. For one or two calls this costs a fraction of compiling. The whole
    networks of test_network_parity.py and test_refinedet_parity.py compile the same code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MS_JIT", "0")     # MindSpore's own switch
        yield


@pytest.fixture
def compiled(monkeypatch):
    """Compile networks, as users do, where the other tests of the folder run operator by operator."""
    monkeypatch.delenv("MS_JIT", raising=False)


def _folder(variable: str, default: Path) -> Path:
    path = Path(os.environ.get(variable) or default)
    if not path.is_dir():
        pytest.skip(f"{variable}: no such folder: {path}")
    return path.resolve()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real images and annotations."""
    return _folder("DATA_DIR", ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of other frameworks' checkpoints and what these frameworks compute from them."""
    return _folder("PARITY_DIR", ROOT.parent / "shared" / "parity")


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """Folder of small data sets with mistakes that people and tools make."""
    return _folder("CASES_DIR", ROOT.parent / "shared" / "cases")


def _finder(variable: str, folder: Path):
    """Return find(name) -> a file or folder in `folder`. If it is missing, the test is skipped."""
    def find(name) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"{variable}: no {name} in {folder}")
        return folder / name

    return find


@pytest.fixture(scope="session")
def parity_file(parity_dir):
    """parity_file(name): see _finder."""
    return _finder("PARITY_DIR", parity_dir)


@pytest.fixture(scope="session")
def case_file(cases_dir):
    """case_file(name): see _finder."""
    return _finder("CASES_DIR", cases_dir)


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def s3_server():
    """(client, environment) of an S3 server on this machine. Other processes need the environment to find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    environment = {"S3_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                   "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret",
                          region_name="us-east-1")
    yield client, environment
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """(client, name) of a new bucket, which the environment of this process points to."""
    client, environment = s3_server
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.fixture(scope="session")
def run_command():
    """See tests/commands.py."""
    return commands.run
